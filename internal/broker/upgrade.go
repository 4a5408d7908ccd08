package broker

import "context"

func (x *exchange) upgrade(ctx context.Context)                     {}
func (x *exchange) overHTTP2(ctx context.Context, u *upstream) bool { return false }
func (u *upstream) newHTTP2() error                                 { return nil }
