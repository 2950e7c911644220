package admin

import (
	"net/http"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// outboxView is the mail that waits. What is in a letter opens accounts: it is
// not sent to the browser before somebody asks for that letter.
type outboxView struct {
	Letters []embeddedgateway.Mail
	Trouble bool // some cannot be read
}

func (s *site) outbox(w http.ResponseWriter, r *http.Request, v *visit) {
	list, err := s.Gateway.Outbox(r.Context())
	if err != nil && len(list) == 0 {
		s.broken(w, r, v, err)
		return
	}
	if err != nil {
		s.Logger.WarnContext(r.Context(), "not every letter of the outbox can be read", "error", err)
	}
	for i := range list {
		list[i].Text = ""
	}
	s.render(w, r, v, http.StatusOK, "outbox", "Outbox", outboxView{Letters: list, Trouble: err != nil})
}

// readLetter shows a letter as it is, which the audit trail notes.
func (s *site) readLetter(w http.ResponseWriter, r *http.Request, v *visit) {
	letter, err := s.Gateway.Letter(r.Context(), r.PostFormValue("letter"), v.ip)
	if err != nil {
		s.broken(w, r, v, err)
		return
	}
	s.render(w, r, v, http.StatusOK, "letter", "A letter", letter)
}
