package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"gateway/adapters"
	"gateway/config"
	"gateway/internal/secret"
	"gateway/mqtt"
	"gateway/mqtt/client"
)

// clientOptions says how to reach a broker. Names of files count from configFile's directory.
func clientOptions(gatewayID string, cfg *config.Destination, configFile string) (client.Options, error) {
	o := client.Options{
		URLs: cfg.Addresses(), Username: cfg.Username, ClientID: cfg.ClientID, KeepAlive: cfg.KeepAlive,
		// What an earlier process had in flight the queue sends anew, under packet identifiers of its own:
		// a session from before would take them for the old ones. The session is for reconnecting.
		CleanStart: true, SessionExpiry: time.Hour,
		// Delivery keeps to its window by itself, and announcements need room beside it.
		MaxInflight: max(cfg.Window, 1024), MaxUnacked: cfg.Window + 4096,
	}
	switch cfg.Version {
	case "5", "5.0":
		o.Version = mqtt.V5
	case "3.1.1":
		o.Version = mqtt.V311
	}
	if o.ClientID == "" {
		// Two destinations may be the same broker, and a broker knows a client by this name alone.
		o.ClientID = gatewayID + "-" + cfg.Name
	}
	var errs []error
	failed := func(key string, err error) {
		errs = append(errs, &placeError{cfg.At, key, fmt.Errorf("%s: %w", key, err)})
	}
	if cfg.PasswordFile != "" {
		var err error
		if o.Password, err = secret.Read(cfg.PasswordFile, configFile, os.Getenv); err != nil {
			failed("password_file", err)
		}
	}
	if cfg.PasswordEnv != "" {
		var err error
		if o.Password, err = secret.Variable(cfg.PasswordEnv, os.LookupEnv); err != nil {
			failed("password_env", err)
		}
	}
	if cfg.CAFile != "" || cfg.CertFile != "" || cfg.ServerName != "" || len(cfg.ALPN) > 0 {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName, NextProtos: cfg.ALPN}
	}
	file := func(name string) string { return secret.Path(name, configFile, os.Getenv) }
	if cfg.CAFile != "" {
		o.TLS.RootCAs = x509.NewCertPool()
		if pem, err := os.ReadFile(file(cfg.CAFile)); err != nil {
			failed("ca_file", err)
		} else if !o.TLS.RootCAs.AppendCertsFromPEM(pem) {
			failed("ca_file", fmt.Errorf("%s holds no certificate in PEM form", cfg.CAFile))
		}
	}
	if cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(file(cfg.CertFile), file(cfg.KeyFile))
		if err != nil {
			failed("certificate_file", err)
		}
		o.TLS.Certificates = []tls.Certificate{pair}
	}
	return o, errors.Join(errs...)
}

// checkConnection says which of the files that a destination names cannot be used today. Who runs
// the check may see fewer of them than the service does, so these are warnings.
func checkConnection(gatewayID string, cfg *config.Destination, configFile string) {
	_, err := clientOptions(gatewayID, cfg, configFile)
	for _, err := range adapters.Joined(err) {
		var at *placeError
		if errors.As(err, &at) {
			at.at.Warnf(at.key, "%v", at.err)
		}
	}
}
