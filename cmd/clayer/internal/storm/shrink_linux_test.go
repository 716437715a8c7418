package storm

import (
	"encoding/json"
	"slices"
)

// mostTries bounds how often a failing round is played to make it smaller.
const mostTries = 25

// shrink returns the smallest round found that still fails: with fewer actions,
// and less that goes wrong.
func shrink(r *Round, fails func(*Round) bool) *Round {
	tries := 0
	for again := true; again; {
		again = false
		for _, simpler := range simplified(r) {
			if tries++; tries > mostTries {
				return r
			}
			if fails(simpler) {
				r, again = simpler, true
				break
			}
		}
	}
	return r
}

// simplified returns rounds that have one thing less, those that lack most first.
func simplified(r *Round) (list []*Round) {
	without := func(change func(*Round)) {
		c := r.clone()
		change(c)
		if c.String() != r.String() {
			list = append(list, c)
		}
	}
	for i := range r.Actions {
		without(func(c *Round) { c.Actions = slices.Delete(c.Actions, i, i+1) })
	}
	without(func(c *Round) { c.Store = "" })
	without(func(c *Round) { c.SmallCache = false })
	without(func(c *Round) { c.OneDisk = false })
	for i, a := range r.Actions {
		without(func(c *Round) { c.Actions[i].Beside = "" })
		without(func(c *Round) { c.Actions[i].Damage = nil })
		if len(a.Damage) > 1 {
			without(func(c *Round) { c.Actions[i].Damage = a.Damage[:1] })
			without(func(c *Round) { c.Actions[i].Damage = a.Damage[1:] })
		}
		without(func(c *Round) { c.Actions[i].Answers = nil })
		without(func(c *Round) { c.Actions[i].FarAnswers = nil })
		without(func(c *Round) { c.Actions[i].Fault = nil })
	}
	for i := range r.Recipes {
		for j := range r.Recipes[i].Lines {
			without(func(c *Round) { c.Recipes[i].Lines = slices.Delete(c.Recipes[i].Lines, j, j+1) })
		}
	}
	return list
}

func (r *Round) clone() *Round {
	data, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	c := new(Round)
	if err := json.Unmarshal(data, c); err != nil {
		panic(err)
	}
	return c
}
