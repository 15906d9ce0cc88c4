#include "http/outbox.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "base/check.h"

namespace fathom::http {
namespace {

// A sender waits while more than this is queued.
constexpr size_t kHighWater = size_t{64} << 10;
// Leading zeros of a chunk size: parsers take at least 16 digits, sizes here have at most 8.
constexpr size_t kMaxZeros = 6;

// Bytes taken by the kernel, 0 when it takes none now, -1 when the connection is broken.
ssize_t send_some(int fd, iovec* parts, size_t count) {
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = count;
  while (true) {
    const ssize_t n = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) return n;
    if (errno == EINTR) continue;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? 0 : -1;
  }
}

}  // namespace

bool Outbox::send(std::initializer_list<std::string_view> pieces, bool wait, Probe next) {
  bool newly_blocked = false;
  bool newly_failed = false;
  bool ok = true;
  {
    std::unique_lock lock(mutex_);
    if (failed_) return false;
    size_t skip = probe_ == Probe::kStatusLine ? probed_ : 0;
    iovec parts[4];
    size_t count = 0;
    size_t total = 0;
    FATHOM_CHECK_LE(pieces.size(), std::size(parts));
    for (std::string_view piece : pieces) {
      const size_t drop = std::min(skip, piece.size());
      skip -= drop;
      piece.remove_prefix(drop);
      if (piece.empty()) continue;
      parts[count++] = {const_cast<char*>(piece.data()), piece.size()};
      total += piece.size();
    }
    probe_ = next;
    probed_ = 0;
    size_t sent = 0;
    if (pending_.empty()) {
      const ssize_t n = total == 0 ? 0 : send_some(fd_, parts, count);
      if (n < 0) {
        failed_ = newly_failed = true;
        ok = false;
      } else {
        sent = static_cast<size_t>(n);
        sent_bytes_ += sent;
        newly_blocked = sent < total;
      }
    }
    for (size_t i = 0; ok && i < count; ++i) {
      const size_t drop = std::min(sent, parts[i].iov_len);
      sent -= drop;
      pending_.append(static_cast<const char*>(parts[i].iov_base) + drop, parts[i].iov_len - drop);
    }
  }
  if (newly_failed) hooks_.failed();
  if (newly_blocked) hooks_.blocked();
  if (ok && wait) {
    std::unique_lock lock(mutex_);
    drained_.wait(lock, [&] { return failed_ || pending_.size() - pending_start_ <= kHighWater; });
    ok = !failed_;
  }
  return ok;
}

void Outbox::expect(Probe next) {
  std::lock_guard lock(mutex_);
  probe_ = next;
  probed_ = 0;
}

bool Outbox::probe() {
  bool newly_failed = false;
  {
    std::lock_guard lock(mutex_);
    if (failed_) return false;
    if (!pending_.empty()) return true;  // what waits will tell
    static constexpr char kZero = '0';
    const char* byte = nullptr;
    if (probe_ == Probe::kStatusLine && probed_ < kStatusLineStart.size()) byte = &kStatusLineStart[probed_];
    if (probe_ == Probe::kChunkSize && probed_ < kMaxZeros) byte = &kZero;
    if (byte == nullptr) return false;
    iovec part{const_cast<char*>(byte), 1};
    const ssize_t n = send_some(fd_, &part, 1);
    if (n < 0) failed_ = newly_failed = true;
    if (n > 0) {
      ++probed_;
      ++sent_bytes_;
    }
  }
  if (newly_failed) hooks_.failed();
  return true;
}

Outbox::Flush Outbox::flush() {
  std::unique_lock lock(mutex_);
  while (!failed_ && !pending_.empty()) {
    iovec part{pending_.data() + pending_start_, pending_.size() - pending_start_};
    const ssize_t n = send_some(fd_, &part, 1);
    if (n < 0) {
      failed_ = true;
      break;
    }
    if (n == 0) {
      // Give the sent part back once it is the larger one.
      if (pending_start_ > pending_.size() / 2) {
        pending_.erase(0, pending_start_);
        pending_start_ = 0;
      }
      if (pending_.size() - pending_start_ <= kHighWater) drained_.notify_all();
      return Flush::kBlocked;
    }
    sent_bytes_ += static_cast<uint64_t>(n);
    pending_start_ += static_cast<size_t>(n);
    if (pending_start_ == pending_.size()) {
      pending_ = std::string();
      pending_start_ = 0;
    }
  }
  drained_.notify_all();
  return failed_ ? Flush::kFailed : Flush::kEmpty;
}

void Outbox::fail() {
  std::lock_guard lock(mutex_);
  failed_ = true;
  drained_.notify_all();
}

void Outbox::detach() {
  std::lock_guard lock(mutex_);
  failed_ = true;
  fd_ = -1;
  drained_.notify_all();
}

bool Outbox::failed() const {
  std::lock_guard lock(mutex_);
  return failed_;
}

uint64_t Outbox::sent_bytes() const {
  std::lock_guard lock(mutex_);
  return sent_bytes_;
}

bool Outbox::empty() const {
  std::lock_guard lock(mutex_);
  return pending_.empty();
}

}  // namespace fathom::http
