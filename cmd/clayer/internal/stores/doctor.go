package stores

import (
	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/solver/doctor"
)

// Target fills in what is to be looked at: the cache directory, GitHub unless it is not to be
// asked, and the stores. What is wrong with these already is returned as findings.
func (o *Opener) Target(t *doctor.Target, withNetwork bool) (failed []doctor.Finding, err error) {
	o.ReadOnly = true
	o.Notices = Notices{
		StoreFailed: func(store string, err error) {
			failed = append(failed, doctor.Finding{Area: "stores", Name: store, Text: err.Error(), Remedy: "a directory that can be written"})
		},
		Warn: func(string) {},
	}
	if t.Cache, err = o.CacheDirectory(); err != nil {
		return nil, err
	}
	if o.Offline || !withNetwork {
		o.Repo = ""
	} else if t.GitHub, err = o.GitHub(); err != nil {
		return nil, err
	}
	if o.Repo != "" {
		if t.Repo, err = o.Repository(); err != nil {
			return nil, err
		}
	}
	local, err := o.Local()
	if err != nil {
		return nil, err
	}
	if local != nil {
		t.Stores = []cache.Store{local}
	}
	named, err := o.Named(nil)
	t.Token, t.Stores, t.Network = o.TokenName(), append(t.Stores, named...), o.Transfer().Network
	return failed, err
}
