package embeddedgateway

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// scrapeTime is how long the database may take to answer a scrape.
const scrapeTime = 2 * time.Second

// scraped collects what is looked up when somebody asks.
type scraped struct{ *Gateway }

// Describe implements [prometheus.Collector]. It describes nothing, which lets
// Collect decide: not every database can tell the same.
func (*scraped) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (s *scraped) Collect(ch chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, value float64, labels prometheus.Labels) {
		desc := prometheus.NewDesc(name, help, nil, labels)
		ch <- prometheus.MustNewConstMetric(desc, kind, value)
	}
	gauge := func(name, help string, value float64) { send(prometheus.GaugeValue, name, help, value, nil) }
	send(prometheus.GaugeValue, "enlist_build_info", "Which program this is; always 1.", 1,
		prometheus.Labels{"version": s.cfg.Version, "go": runtime.Version()})
	ready := 0.0
	if s.ready(context.Background()) == "" {
		ready = 1
	}
	gauge("enlist_ready", "1 while requests are taken and the database answers, else 0.", ready)

	if s.proxy.to != nil {
		all, last := s.proxy.underWay()
		gauge("enlist_upstream_open", "Requests to the API behind the gateway that are under way.", float64(all))
		gauge("enlist_upstream_streams", "Those of them that are WebSockets and streams of events.", float64(last))
	}

	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	if n, err := s.store.CountSealed(ctx, letterKind, mostMail); err == nil {
		gauge("enlist_mail_waiting", "Letters in the outbox.", float64(n))
	}
	stats := s.store.Stats()
	for result, n := range map[string]uint64{"committed": stats.Committed, "undone": stats.Undone} {
		send(prometheus.CounterValue, "enlist_database_transactions_total", "Transactions.", float64(n), prometheus.Labels{"result": result})
	}
	send(prometheus.CounterValue, "enlist_database_retries_total", "Transactions that the database asked to run again.", float64(stats.Retries), nil)
	for protocol, a := range stats.Authentications {
		for result, n := range map[string]uint64{"good": a.Good, "refused": a.Refused} {
			send(prometheus.CounterValue, "enlist_authentications_total", "Keys that were presented, by whether they may be used.",
				float64(n), prometheus.Labels{"protocol": protocol, "result": result})
		}
	}
	s.collectWriter(ch, gauge, stats)
	gauge("enlist_database_connections_open", "Connections that read, open.", float64(stats.Pool.OpenConnections))
	gauge("enlist_database_connections_in_use", "Connections that read, in use.", float64(stats.Pool.InUse))
	send(prometheus.CounterValue, "enlist_database_connection_waits_total", "How often one waited for a connection that reads.",
		float64(stats.Pool.WaitCount), nil)
	send(prometheus.CounterValue, "enlist_database_connection_wait_seconds_total", "How long they did.",
		stats.Pool.WaitDuration.Seconds(), nil)
}

// collectWriter tells of the one writer that SQLite has.
func (*scraped) collectWriter(ch chan<- prometheus.Metric, gauge func(string, string, float64), stats store.Stats) {
	if stats.Writer == nil {
		return
	}
	w := stats.Writer
	gauge("enlist_database_waiting_writers", "Transactions that wait for their turn.", float64(w.Waiting))
	gauge("enlist_database_wal_bytes", "The size of the write-ahead log.", float64(w.LogBytes))
	buckets := map[float64]uint64{}
	for i, most := range w.BatchSizes() {
		buckets[float64(most)] = w.Batches[i]
	}
	ch <- prometheus.MustNewConstHistogram(
		prometheus.NewDesc("enlist_database_batch_transactions", "How many transactions shared a commit.", nil, nil),
		w.Count, float64(w.Sum), buckets)
}
