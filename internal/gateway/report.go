package gateway

import (
	"context"

	"gateway/config"
	"gateway/internal/format"
	"gateway/internal/report"
)

// reportRules returns what the configuration says is worth reporting of each point.
func reportRules(says *config.Reporting) func(device, point string) report.Rule {
	if says == nil {
		return func(string, string) report.Rule { return report.Rule{} }
	}
	return func(device, point string) report.Rule { return reportRule(says.Of(device, point, format.Match)) }
}

func reportRule(c config.Report) report.Rule {
	r := report.Rule{OnChange: c.Deadband != nil}
	if c.Deadband != nil {
		r.Deadband, r.Percent = c.Deadband.Absolute, c.Deadband.Percent
	}
	if c.OnChange != nil {
		r.OnChange = *c.OnChange
	}
	if c.Heartbeat != nil {
		r.Heartbeat = *c.Heartbeat
	}
	if c.MinInterval != nil {
		r.MinInterval = *c.MinInterval
	}
	if c.Window != nil {
		r.Window = *c.Window
	}
	for _, a := range c.Aggregate {
		r.Aggregate = append(r.Aggregate, report.Func(a))
	}
	return r
}

// flushReports hands on the windows that are open when the buses have ended.
func (g *Gateway) flushReports(ctx context.Context) error {
	<-ctx.Done()
	g.filter.Flush()
	return nil
}
