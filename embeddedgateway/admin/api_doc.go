// Package admin is what the operator of a gateway reaches on a listener of its
// own: the page and the JSON API.
package admin
