package store_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// pooler answers as PgBouncer does: by a refusal of the connection, or with the
// same session of the server to every connection.
func pooler(t *testing.T, refusal *pgproto3.ErrorResponse) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				b := pgproto3.NewBackend(conn, conn)
				if _, err := b.ReceiveStartupMessage(); err != nil {
					return
				}
				if refusal != nil {
					b.Send(refusal)
					_ = b.Flush()
					return
				}
				b.Send(&pgproto3.AuthenticationOk{})
				b.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
				b.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
				ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
				b.Send(ready)
				for b.Flush() == nil {
					m, err := b.Receive()
					if err != nil {
						return
					}
					switch m := m.(type) {
					case *pgproto3.Query:
						answerAsPooler(b, m.String)
						b.Send(ready)
					case *pgproto3.Parse: // the driver asks whether the server only reads
						b.Send(&pgproto3.ParseComplete{})
						b.Send(&pgproto3.BindComplete{})
						answerAsPooler(b, m.Query)
					case *pgproto3.Sync:
						b.Send(ready)
					case *pgproto3.Terminate:
						return
					}
				}
			}()
		}
	}()
	return "postgres://u:p@" + ln.Addr().String() + "/d?sslmode=disable&default_query_exec_mode=simple_protocol"
}

// answerAsPooler answers 7 to who asks for the number of the session, and else
// that all is well.
func answerAsPooler(b *pgproto3.Backend, q string) {
	row := func(oid uint32, value string) {
		b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x"), DataTypeOID: oid, DataTypeSize: -1, TypeModifier: -1}}})
		b.Send(&pgproto3.DataRow{Values: [][]byte{[]byte(value)}})
	}
	switch {
	case strings.Contains(q, "pg_backend_pid"):
		row(23, "7")
	case strings.Contains(q, "transaction_read_only"):
		row(25, "off")
	case strings.Contains(q, "lock_shared"):
		row(16, "t")
	}
	b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
}

func TestAPoolerThatKeepsNoSessionsIsNamed(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]*pgproto3.ErrorResponse{
		"parameters":          {Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: statement_timeout"},
		"another's statement": {Severity: "ERROR", Code: "42P05", Message: `prepared statement "x" already exists`},
	} {
		_, err := store.Open(t.Context(), store.Options{URL: pooler(t, refusal), Now: time.Now})
		if err == nil || !strings.Contains(err.Error(), "a pooler stands before the server") || strings.Contains(err.Error(), "cannot be reached") {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	if err := store.AdmitPostgres(t.Context(), pooler(t, nil)); err == nil || !strings.Contains(err.Error(), "a pooler stands before the server") {
		t.Errorf("one session for all: got error %v", err)
	}
}
