package setup

import "fmt"

// Asker asks a person. With --yes it gives the default back.
type Asker interface {
	// Choose returns the index of the option taken.
	Choose(question string, options []string, def int) (int, error)
}

// Ask settles what a person may want otherwise: at most four questions, none
// where there is nothing to choose.
func (p *Plan) Ask(a Asker) error {
	var sure, unknown []*Secret
	for _, s := range p.Secrets {
		switch {
		case s.Stays || !s.Import:
		case s.Kind == generic:
			unknown = append(unknown, s)
		default:
			sure = append(sure, s)
		}
	}
	if len(sure) > 1 {
		choice, err := a.Choose("Protect which", []string{fmt.Sprintf("all %d", len(sure)), "choose by provider"}, 0)
		if err != nil {
			return err
		}
		if choice == 1 {
			if err := p.choose(a, sure); err != nil {
				return err
			}
		}
	}
	if left := p.left(); len(left) > 0 {
		question := count(len(left), "secret") + " that you left as they are"
		choice, err := a.Choose(question, []string{"leave them", "protect them now"}, 0)
		if err != nil {
			return err
		}
		if choice == 1 {
			p.protect(left)
		}
	}
	if len(unknown) > 0 {
		question := fmt.Sprintf("%s of no known provider", count(len(unknown), "secret"))
		choice, err := a.Choose(question, []string{"placeholder, hosts are named later", "leave as they are"}, 0)
		if err != nil {
			return err
		}
		if choice == 1 {
			p.leave(unknown)
		}
	}
	return nil
}

// choose asks for one provider to leave out; a person with several to leave
// out edits the policy instead of answering ten questions.
func (p *Plan) choose(a Asker, sure []*Secret) error {
	options := []string{"protect all"}
	for _, s := range sure {
		options = append(options, "all but "+s.Name)
	}
	choice, err := a.Choose("Leave out", options, 0)
	if err != nil || choice <= 0 || choice > len(sure) {
		return err
	}
	p.leave(sure[choice-1 : choice])
	return nil
}
