// The outgoing half of one connection, shared by the handler's thread and the connection's I/O thread.
//
// Bytes go straight to the kernel from whichever thread has them; only what the kernel does not take at once
// waits here for the I/O thread. So a token costs one system call and no hop between threads.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace fathom::http {

// What every response begins with.
inline constexpr std::string_view kStatusLineStart = "HTTP/1.1 ";

// Thread safe.
class Outbox {
 public:
  // What may be sent early, in single bytes, to see whether the peer is still there (see server.h).
  enum class Probe { kNone, kStatusLine, kChunkSize };
  enum class Flush { kEmpty, kBlocked, kFailed };
  struct Hooks {
    std::function<void()> blocked;  // bytes wait: call flush() when the socket is writable
    std::function<void()> failed;   // a send failed: the peer is gone
  };

  // `fd` is a connected, non-blocking socket, owned by the caller, open until detach(). The hooks are called
  // without locks held, from the thread that found out.
  Outbox(int fd, Hooks hooks) : fd_(fd), hooks_(std::move(hooks)) {}

  // Sends or queues the pieces in order. With `wait`, returns once few enough bytes wait, or the outbox
  // fails. False when it has failed. `next` says how what follows will begin.
  bool send(std::initializer_list<std::string_view> pieces, bool wait, Probe next);
  // The next response of the connection is about to be made.
  void expect(Probe next);

  // Sends one early byte, if some are left and nothing else is on its way. False: none left to send.
  bool probe();

  // I/O thread: sends what waits, as far as the kernel takes it.
  Flush flush();
  // Nothing more can be sent; wakes a waiting sender.
  void fail();
  // As fail(), and the socket is not touched any more.
  void detach();

  bool failed() const;
  // Bytes that the kernel has taken so far.
  uint64_t sent_bytes() const;
  bool empty() const;

 private:
  int fd_;
  const Hooks hooks_;
  mutable std::mutex mutex_;
  std::condition_variable drained_;
  std::string pending_;
  size_t pending_start_ = 0;
  uint64_t sent_bytes_ = 0;
  Probe probe_ = Probe::kNone;
  size_t probed_ = 0;
  bool failed_ = false;
};

}  // namespace fathom::http
