package adapters

import (
	"context"
	"time"
)

// Grace is how long an exchange that is under way at the end may still take: a device that has been asked
// is heard, for what it answers may count for it as told.
const Grace = 500 * time.Millisecond

// Outlive returns a context that ends Grace after ctx does.
func Outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		late := time.NewTimer(Grace)
		defer late.Stop()
		select {
		case <-late.C:
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() { stop(); cancel() }
}
