// What a kernel knows of the group of GPUs it runs in: where the other ranks' memory lies, how far this rank
// has come, and when to give up. Used by this folder alone.
#pragma once

#include <cstdint>

namespace fathom::dist::cuda {

inline constexpr int kMostRanks = 8;
inline constexpr int kMostBlocks = 256;  // of a kernel whose blocks meet
inline constexpr int kPhases = 2;        // meetings of such a kernel: all are ready, all are done
inline constexpr uint32_t kSlots = 3;    // of an inbox

// Why the group ended, in memory of the host that every GPU and the host read and write.
struct FaultBoard {
  uint32_t ended = 0;  // by a rank that gave up, or by the host
  // Of all ranks, by number: 1 + the one that did not come, plus 16 times the op; 0: none.
  uint32_t waited[kMostRanks] = {};
};

// How far a rank has come, in its own memory. Of the device, so that a replayed graph counts on.
struct Progress {
  uint32_t posts = 0;             // sums by post so far; slot posts % kSlots is the next one's
  uint32_t posted_words[kSlots];  // what the last post in the slot took of each rank's box
  uint32_t meetings = 0;          // kernels with meetings so far
  uint32_t arrived = 0;           // blocks of the running kernel that are done
};

// Passed to kernels by value.
struct PeerView {
  int rank = 0, size = 1;
  int ids[kMostRanks] = {};  // by rank: its number among all ranks, for the board
  Progress* progress = nullptr;
  // By rank. An inbox is [kSlots][size][box_words]: box r of a slot is written by rank r. A word that nobody
  // has written yet is kNothing. None where the group has no posts.
  uint32_t* inbox[kMostRanks] = {};
  int64_t box_words = 0;
  // By rank: [kPhases][kMostBlocks][kMostRanks] the last meeting that each rank's block has come to.
  uint32_t* flags[kMostRanks] = {};
  FaultBoard* fault = nullptr;
  uint64_t timeout_ns = 0;
  // Of a kernel that waits for other ranks. Where any share a GPU, a few: what those have yet to run may
  // need a whole multiprocessor, and finds none once every one has a block that waits for it.
  int64_t most_blocks = kMostBlocks;
};

}  // namespace fathom::dist::cuda
