// Package powercut shows what package buffer is worth when the power goes: on a real kernel, a real
// ext4 and a disk that keeps a record of every block written and every flush, the queue is put to
// work; then some hundred disks are made as they may be found after a cut at any moment, mounted,
// opened and checked. It needs root, /dev/fuse, loop devices and mkfs.ext4, and fails without.
package powercut
