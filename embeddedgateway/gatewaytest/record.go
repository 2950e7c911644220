package gatewaytest

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// secretFields are the names under which the five services issue secrets.
func secretFields() map[string]bool {
	return map[string]bool{
		"token": true, "invite_code": true, // Lona
		"api_key": true, "apiKey": true, "access_token": true, "recovery_key": true,
	}
}

// Record wraps the handler of a gateway. Every secret in an answer goes to sink
// before the client has the answer; sink may be called by several goroutines
// at once. A secret is what stands under the name of one, or looks like one, in
// a JSON body. Such a body is held back until it is whole; any other passes.
func Record(h http.Handler, sink func(secret string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		h.ServeHTTP(rec, r)
		if !rec.held {
			return
		}
		var body any
		if err := json.Unmarshal(rec.body.Bytes(), &body); err == nil {
			secretsIn("", body, sink)
		}
		w.WriteHeader(rec.status)
		_, _ = w.Write(rec.body.Bytes())
	})
}

type recorder struct {
	http.ResponseWriter
	begun, held bool
	status      int
	body        bytes.Buffer
}

// WriteHeader implements [http.ResponseWriter].
func (r *recorder) WriteHeader(status int) {
	if r.begun {
		return
	}
	if status < http.StatusOK {
		r.ResponseWriter.WriteHeader(status)
		return
	}
	name, _, _ := mime.ParseMediaType(r.Header().Get("Content-Type"))
	r.begun, r.held, r.status = true, name == "application/json", status
	if !r.held {
		r.ResponseWriter.WriteHeader(status)
	}
}

// Write implements [http.ResponseWriter].
func (r *recorder) Write(b []byte) (int, error) {
	if !r.begun {
		r.WriteHeader(http.StatusOK)
	}
	if r.held {
		return r.body.Write(b)
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func secretsIn(name string, value any, sink func(string)) {
	switch v := value.(type) {
	case map[string]any:
		for name, value := range v {
			secretsIn(name, value, sink)
		}
	case []any:
		for _, value := range v {
			secretsIn(name, value, sink)
		}
	case string:
		if v != "" && secretFields()[name] {
			sink(v)
		}
		for _, p := range wire.Protocols() {
			for _, s := range p.Shapes {
				for _, found := range s.Pattern.FindAllString(v, -1) {
					sink(found)
				}
			}
		}
	}
}
