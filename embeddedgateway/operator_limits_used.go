package embeddedgateway

// used returns how often a key was used in the window that ends now.
func (k *keyLimit) used(id int64) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	hits, ok := k.newer[id]
	if !ok {
		hits = k.old[id]
	}
	at, per := k.now().UnixMicro(), k.per.Microseconds()
	for _, h := range hits {
		if at-h < per && at-h >= -per {
			n++
		}
	}
	return n
}
