//go:build mmapio_ignoreheld

package mmapio

import "errors"

// A policy that does not know of held Regions, to prove that the proofs notice.
func init() {
	failpoint = func(step string) error {
		if step == "held" {
			return errors.New("not counted")
		}
		return nil
	}
}
