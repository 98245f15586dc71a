// Package e2e runs the gateway against parts that we did not write: brokers, Modbus servers,
// subscribers, kernels. Every part that is missing on a machine is a failure, not a skip;
// .ci/run installs them.
package e2e
