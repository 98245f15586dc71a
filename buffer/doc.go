// Package buffer keeps records on disk until everybody who needs them is done with them: a bounded
// queue of opaque records with named consumers, and a journal built from the same parts.
//
// # Promises
//
// A record whose name Append returned survives a crash of the process; one that AppendSync returned,
// or that a sync covered since, survives a power cut. What was damaged is recognised, stepped over,
// counted and never delivered; nothing keeps the queue from opening but a lock, a newer version of
// the format, or a directory that cannot be used at all. No name is ever used twice.
//
// # Files
//
//	lock                      held while the queue is open; holds the process id
//	cursors                   two slots: where each consumer is
//	new-cursors               what takes its place when a page of it could not be written
//	0000000000000007.seg      segments, in the order of their numbers
//	spare-0000000000000004    used or zeroed files that will be the next segments
//	quarantine-…              copies of damaged segments, at most two
//
// # Segment, version 1
//
// All numbers are little-endian. A segment has a fixed size, and its space is reserved where the file
// system can do that. It is zeroed before it is used, as far ahead as the records of the next seconds
// will reach, for an overwrite is what a sync makes durable most cheaply. A file that was a segment
// before need not be. One that was cut, at an opening or after a failure, is as long as what it holds.
// The header stands at the beginning and again in the last 64 bytes.
//
//	offset  size
//	     0     8  magic "gwq-seg\n"
//	     8     4  version
//	    12     4  CRC-32C of bytes 0 to 11 and 16 to 63
//	    16     8  number
//	    24     8  epoch of the opening that wrote it
//	    32     8  base: sequence of the first record; where the segment before ends at the latest
//	    40     8  salt, random and secret
//	    48     4  size of the file
//	    52     4  seconds of running time after which no record was added, 0: no bound
//	    56     8  running time of the queue at which it began, in nanoseconds
//	    64        frames, one after the other, as far as they go
//
// A frame is what is written, checked and, when damaged, lost as one. Frames of several records end
// before they grow beyond 4 KiB.
//
//	offset  size
//	     0     4  CRC-32C of bytes 4 to the end, continued from the segment's seed
//	     4     1  kind: 0xA1 records, 0xA2 dictionary, 0xA3 end of a journal's snapshot
//	     5     3  length of the payload
//	     8     4  sequence of the first record (of the next one, for a dictionary), less the base
//	    12     4  the segment was synced up to this offset when the frame was written
//	    16        payload
//
//	records:     { dictionary number uvarint, 0: none | length uvarint | data } …
//	dictionary:  number uvarint | hash 8 bytes | data
//
// The seed is the CRC-32C of salt, number and epoch. It keeps what an earlier life of the file left
// behind, and whatever a payload imitates, from passing as a frame of this segment. A dictionary is
// written before its first use in a segment, twice, so that no single damaged frame takes others
// along.
//
// After a frame that does not pass, the next one that does is searched for. Its sequence tells how
// many records are missing; its synced offset whether they had been synced (then it is damage) or
// not (then a power cut took them).
//
// # Cursors, version 1
//
// Each slot has 32 KiB; only what is used is written. Of the two one is durable, and the other is written
// to: every 5 s with a sync, by which they change places, and between, where cursors have moved, without.
// So a crash of the process sets cursors back by a tenth of a second, a power cut by 5 s.
//
//	offset  size
//	     0     8  magic "gwq-cur\n"
//	     8     4  version
//	    12     4  CRC-32C of bytes 0 to 11 and 16 to the end
//	    16     8  generation; the higher one counts
//	    24     4  length
//	    28     4  zero
//	    32        flags byte, 1: closed | boot: length uvarint, bytes | running time uvarint |
//	              last record: epoch 8 bytes, sequence uvarint | number of consumers uvarint |
//	              { name: length uvarint, bytes | top: epoch 8 bytes, sequence uvarint |
//	                top - cursor uvarint | records lost uvarint | done ranges | backfill ranges } … |
//	              number of losses not reported uvarint | { consumer: length uvarint, bytes |
//	                first: epoch 8 bytes, sequence uvarint | epoch of the last 8 bytes |
//	                count uvarint, 0: open | reason: length uvarint, bytes } … |
//	              { tally: two uvarints } for each consumer, none in files of earlier versions
//
//	ranges:       number uvarint { gap since the last range uvarint | length - 1 uvarint } …
//
// # Order of things
//
// Records are durable in this order: segment contents, oldest first; then the names in the
// directory; then cursors. A segment is used again only after cursors that are past it are durable.
// At most three segments wait for a sync. After a write or a sync that failed nothing is tried again
// in place: the segments are sealed where the last good sync left them, and what came since is
// written into new ones from memory; nobody is told that a record is durable which memory did not
// have any more. An opening that follows a crash writes what was not known to be synced once more,
// for the kernel may hold as clean what the disk does not have.
//
// # How it is tested
//
// The tests run on a disk in memory (buffertest) that loses, tears and reorders what was not synced:
// the power is cut at every operation of a workload with rolls, recycling, acks in any order, a
// deferral, restarts and kills, again during recovery, and at random in long random lives; every
// operation fails with EIO, ENOSPC, EROFS and short writes, once and for long; every file has bits
// flipped, blocks overwritten and its end cut off, segments go missing and change places; a process is
// killed 200 times. e2e/powercut does the same on a real kernel and ext4. That
// the tests would notice is itself tested: go run ./buffer/mutants breaks the package in one place
// at a time. Of these, all were caught:
//
//	no fsync                                                TestPowerCutAtEveryOperation
//	fsync tried again after an error                        TestEveryOperationFails
//	directory not synced                                    TestPowerCutAtEveryOperation
//	no CRC                                                  TestPowerCutAtEveryOperation
//	recycled content accepted                               TestPowerCutAtEveryOperation
//	cursor saved after its segment was recycled             TestPowerCutAtEveryOperation
//	cursors in one slot                                     TestPowerCutAtEveryOperation
//	cursor not synced                                       TestPowerCutAtEveryOperation
//	a note goes over what is synced                         TestPowerCutAtEveryOperation
//	a note counts as synced                                 TestNoSegmentIsGivenUpForANote
//	the note of a crashed process is not synced             TestPowerCutAtEveryOperation
//	cursors stay in a file that fails                       TestCursorsThatCannotBeWrittenMoveToAnotherFile
//	a cursor forgets the epoch of a segment that is gone    TestASegmentThatACrashBringsBackIsNotDeliveredAgain
//	cursor not set back to what survived                    TestACursorBeyondARestoredTailSkipsNothingNew
//	a cursor of an unknown epoch counts                     TestACursorOfAnUnknownEpochSkipsNothing
//	the epoch stays                                         TestPowerCutAtEveryOperation
//	what a killed process left is taken for synced          TestPowerCutAtEveryOperation
//	unsynced records are not written anew                   TestEveryOperationFails
//	what memory let go counts as durable                    TestNothingIsCalledDurableThatASyncFailedForAndMemoryLetGo
//	a segment that a failure ended keeps its space          TestFailuresDoNotEatTheBound
//	a file that is to be a segment is not counted           TestDiskMendsAndWritingResumes
//	zeroes are written over records                         TestZeroesAndRecordsKeepClearOfEachOther
//	zeroes are written while records are                    TestZeroesAndRecordsKeepClearOfEachOther
//	a damaged frame ends the segment                        TestOneFlippedBitAnywhere
//	dictionaries are written once                           TestOneFlippedBitAnywhere
//	the second header is not read                           TestOneFlippedBitAnywhere
//	losses are forgotten by a crash                         TestPowerCutDuringRecovery
//	the next segment's base does not end the one before     TestPowerCutAtEveryOperation
//	who came during a sync takes the place of one it served TestConcurrentCallersShareEachSync
//	a segment that grew during its sync counts as synced    TestSegmentThatGrowsDuringItsSyncIsSyncedAgain
//	journal: no fsync                                       TestJournalSurvivesPowerCutAndFailureAtEveryOperation
//	journal: snapshot not synced                            TestJournalSurvivesPowerCutAndFailureAtEveryOperation
//	journal: the snapshot's name is not synced              TestJournalSurvivesPowerCutAndFailureAtEveryOperation
//	a short write counts as written                         TestEveryOperationFails
package buffer
