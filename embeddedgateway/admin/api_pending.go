package admin

import "net/http"

func (s *site) serveAPI(w http.ResponseWriter, r *http.Request, v *visit) {
	s.fail(w, r, v, http.StatusNotFound, "")
}
