package setup

import "context"

// Appeared finds real keys that came into a protected directory after its
// setup: somebody pasted one, or an agent wrote one. The plan adopts exactly
// them and touches neither .gitignore nor .env.example; without any it is
// Empty. Values that were left real on purpose are not reported again.
func Appeared(ctx context.Context, in Input) (*Plan, []Secret, error) {
	p, err := MakePlan(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	p.Texts = nil
	var fresh []Secret
	for _, s := range p.Secrets {
		if s.Import && (!s.Stays || !s.Known) {
			fresh = append(fresh, *s)
		}
	}
	var files []*FilePlan
	for _, f := range p.Files {
		if f.Values > 0 {
			files = append(files, f)
		}
	}
	p.Files = files
	return p, fresh, nil
}
