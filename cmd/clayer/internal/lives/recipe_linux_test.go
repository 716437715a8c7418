package lives

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// An effect is what an instruction does, as far as a check asks.
type effect struct {
	probes  []string
	adds    []string // paths and records that it may add, with what is below them
	touches []string // what it may change of what the machine has
	appends []string // files that it may only add lines to
}

// others are the instructions that no package manager carries out.
var others = map[string]effect{
	"RUN useradd bob":                                                       user("bob"),
	"RUN useradd -u 1005 carol":                                             user("carol"),
	"RUN useradd -G sudo dave":                                              user("dave"),
	"RUN useradd -r daemond && touch /srv/ready":                            {probes: []string{"user:daemond", "elf:/srv/ready"}, adds: append(user("daemond").adds, "srv/ready")},
	"RUN echo 'umask 027' >> /etc/profile":                                  {probes: []string{"has:/etc/profile=umask 027"}, appends: []string{"etc/profile"}},
	"RUN echo 'set -o vi' >> /etc/profile":                                  {probes: []string{"has:/etc/profile=set -o vi"}, appends: []string{"etc/profile"}},
	"RUN mkdir -p /opt/tool && echo tool > /opt/tool/conf":                  {probes: []string{"has:/opt/tool/conf=tool"}, adds: []string{"opt/tool/conf"}},
	"RUN mkdir -p $HOME/.tool && echo home > $HOME/.tool/conf":              {probes: []string{"has:$HOME/.tool/conf=home"}, adds: []string{"root/.tool", "home/me/.tool"}},
	"RUN sh /usr/share/registry/driver.sh":                                  {probes: []string{"elf:/usr/local/bin/driver"}, adds: append(packages("deb", "libpq5").adds, "usr/local/bin/driver")},
	"RUN useradd erin && mkdir /srv/erin && chown erin /srv/erin 2>&1 || :": {probes: []string{"user:erin"}, adds: append(user("erin").adds, "srv/erin")},
	"COPY conf /etc/tool.conf":                                              {probes: []string{"has:/etc/tool.conf=conf"}, adds: []string{"etc/tool.conf"}},
	"COPY conf /opt/tool/":                                                  {probes: []string{"has:/opt/tool/conf=conf"}, adds: []string{"opt/tool/conf"}},
	"WORKDIR /srv/work":                                                     {probes: []string{"elf:/srv/work"}, adds: []string{"srv/work"}},
}

func user(name string) effect {
	return effect{
		probes:  []string{"user:" + name},
		adds:    []string{"etc/passwd#" + name, "etc/group#" + name, "etc/shadow#" + name, "home/" + name},
		touches: []string{"etc/group#sudo"},
	}
}

// extras are what packages do besides their own files.
var extras = map[string]effect{
	"postgres": {probes: []string{"user:postgres"}, adds: append(user("postgres").adds, "var/lib/postgres", "etc/postgres.conf")},
	"vim":      {probes: []string{"run:/usr/bin/editor"}, touches: []string{"usr/bin/editor", "etc/alternatives/editor"}},
	"nano":     {probes: []string{"run:/usr/bin/editor"}, touches: []string{"usr/bin/editor", "etc/alternatives/editor"}},
	"zsh":      {adds: []string{"etc/shells#/usr/bin/zsh"}},
	"libbase":  {adds: []string{"usr/lib/libbase.so.1"}},
	"libpq5":   {adds: []string{"usr/lib/libpq.so.5"}},
	"tool":     {probes: []string{"run:/usr/local/bin/tool"}, adds: []string{"usr/local/bin/tool"}},
}

// packages is the effect of an install.
func packages(manager string, specs ...string) (e effect) {
	var add func(spec string, asked bool)
	seen := make(map[string]bool)
	add = func(spec string, asked bool) {
		name := nameOf(spec)
		if seen[spec] {
			return
		}
		seen[spec] = true
		if asked {
			e.probes = append(e.probes, manager+":"+name)
		}
		switch manager {
		case "py":
			e.adds = append(e.adds, path.Join(site, name), path.Join(site, name)+"-*", "usr/local/bin/"+name)
			if spec != name {
				e.touches = append(e.touches, path.Join(site, name), path.Join(site, name)+"-*")
			}
		case "deb":
			e.adds = append(e.adds, "var/lib/dpkg/status#"+name, "var/lib/dpkg/info/"+name+".list", "usr/bin/"+name)
		case "npm":
			e.adds = append(e.adds, path.Join(modules, name), "usr/bin/"+name)
		}
		more := extras[name]
		if asked {
			e.probes = append(e.probes, more.probes...)
		}
		e.adds = append(e.adds, more.adds...)
		e.adds = append(e.adds, more.touches...)
		e.touches = append(e.touches, more.touches...)
		for _, dep := range required[manager][name] { // of any version
			add(dep, false)
		}
	}
	for _, spec := range specs {
		add(spec, true)
	}
	return e
}

var installs = map[string]*regexp.Regexp{
	"py":  regexp.MustCompile(`\bpip3? install (.*)`),
	"deb": regexp.MustCompile(`\bapt-get install (.*)`),
	"npm": regexp.MustCompile(`\bnpm install -g (.*)`),
}

// effectOf returns what an instruction does.
func effectOf(line string) effect {
	if e, ok := others[line]; ok {
		return e
	}
	var all effect
	for command := range strings.SplitSeq(line, "&&") {
		for manager, pattern := range installs {
			m := pattern.FindStringSubmatch(command)
			if m == nil {
				continue
			}
			specs := slices.DeleteFunc(strings.Fields(m[1]), func(w string) bool { return strings.HasPrefix(w, "-") })
			all = all.and(packages(manager, specs...))
		}
	}
	return all
}

func (e effect) and(o effect) effect {
	return effect{slices.Concat(e.probes, o.probes), slices.Concat(e.adds, o.adds), slices.Concat(e.touches, o.touches), slices.Concat(e.appends, o.appends)}
}

func effectOfAll(lines []string) (all effect) {
	for _, line := range lines {
		all = all.and(effectOf(line))
	}
	return all
}
