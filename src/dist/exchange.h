// One round of a collective over sockets: a rank sends every other member a header and bytes, and takes the
// same from each, all at once. Used by socket_group.cc alone.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "dist/call.h"
#include "dist/node_world.h"
#include "dist/socket.h"
#include "dist/wire.h"

namespace fathom::dist {

// A rank's connections to the others, shared by its handles of all groups. Used by the rank's thread.
struct RankLinks {
  std::shared_ptr<NodeWorld> world;
  int rank = 0;                            // in the world
  std::vector<Socket> peers;               // [world rank]
  std::map<uint64_t, std::string> groups;  // names, for errors
  uint32_t splits = 0;                     // groups that this rank was the first of
  std::chrono::microseconds patience{0};   // to look again and again before sleeping
  std::vector<std::byte> scratch;
};

class Exchange {
 public:
  // `header` is what all sent headers say but for their payload.
  Exchange(RankLinks& links, const FrameHeader& header) : links_(links), header_(header) {}

  // With world rank `peer`: `bytes` at `send` go there, `expected` bytes come to `receive`.
  void with(int peer, const void* send, int64_t bytes, void* receive, int64_t expected);
  // Until all has gone and come, whatever becomes of the world meanwhile; else the world's error.
  Result<void> run();

 private:
  struct Transfer {
    int peer = 0;
    FrameBytes out_header, in_header{};
    const void* send = nullptr;
    void* receive = nullptr;
    size_t out_total = 0, out_done = 0;  // header and bytes
    size_t in_total = 0, in_done = 0;
    bool checked = false;  // the header that came
    bool closed = false;   // the other end has
    Deadline grace;        // then: when it counts

    bool done() const { return out_done == out_total && in_done == in_total; }
  };

  bool move(Transfer& transfer);  // has anything moved?
  void put(Transfer& transfer, bool* moved);
  void take(Transfer& transfer, bool* moved);
  void check(Transfer& transfer);
  bool all_done() const;
  void look_for_leavers();
  Result<void> wait();
  void give_up();
  std::vector<uint32_t> missing() const;
  std::string describe() const;

  RankLinks& links_;
  const FrameHeader header_;
  std::vector<Transfer> transfers_;
  bool disagreed_ = false;  // a header did not fit; the world has failed
};

}  // namespace fathom::dist
