package gateway

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Strategies returns the list of strategies as the service sent it, with
// every secret masked. A token that it refuses is renewed once.
func (l *Lona) Strategies(ctx context.Context, k credstore.Key) (json.RawMessage, error) {
	act := Act{Action: ActRead, Key: k, Method: http.MethodGet, Path: wire.LonaStrategiesPath}
	return does(ctx, l.steward, act, func(ctx context.Context) (json.RawMessage, error) { return l.strategies(ctx, k) })
}

func (l *Lona) strategies(ctx context.Context, k credstore.Key) (json.RawMessage, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	list, err := l.listStrategies(ctx, k)
	if unauthorized(err) && l.Renew(ctx, k) == nil {
		return l.listStrategies(ctx, k)
	}
	return list, err
}

func (l *Lona) listStrategies(ctx context.Context, k credstore.Key) (json.RawMessage, error) {
	op := call{protocol: wire.LonaName, origin: k.Origin, op: "list the strategies"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.Origin+wire.LonaStrategiesPath, nil)
	if err != nil {
		return nil, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	if err := l.Authorize(ctx, k, req); err != nil {
		return nil, err
	}
	answer, err := l.http.exchange(ctx, op, message{method: req.Method, url: req.URL, header: req.Header}, nil, true)
	if err != nil {
		return nil, err
	}
	text, err := l.http.scrub.Scrub(ctx, string(answer.body))
	if err != nil {
		return nil, op.fail(CodeWithheld, err)
	}
	answer.body = []byte(text)
	var out wire.LonaData[json.RawMessage]
	if err := l.http.decode(op, answer, &out); err != nil {
		return nil, err
	}
	if out.Data == nil {
		return nil, op.unreadable(answer, `the answer has no "data"`)
	}
	// What was taken out may have hidden a secret.
	return json.RawMessage(l.http.scrub.current().mask(string(visibleJSON(out.Data)))), nil
}
