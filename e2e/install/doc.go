// Package install tests what is released as its users get it: the unit under systemd's own eyes, the
// Debian package under lintian's, and both installed in a Debian tree in which real systemd runs as
// process 1. It needs root (for the tree), mmdebstrap, systemd-container and lintian.
package install
