// How two ends of a connection prove to each other that they know the same secret, without saying it:
//
//   guest -> host   hello: magic, protocol, a random number
//   host -> guest   hello: the same of its own
//   guest -> host   HMAC-SHA256(secret, "fathom guest" + both numbers)
//   host -> guest   1, HMAC-SHA256(secret, "fathom host" + both numbers); or 0: not the same secret
//
// The guest proves first: who only knocks learns nothing that a secret could be guessed from. What follows is
// neither encrypted nor signed: nodes talk on a network that others cannot write to.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "dist/socket.h"

namespace fathom::dist {

using Nonce = std::array<char, 32>;
Nonce random_nonce();

// The host's side, as a reader of bytes: feed() what came, send what it gives.
class HostHandshake {
 public:
  static constexpr size_t kHelloBytes = 8 + 2 + 32;

  explicit HostHandshake(std::string secret, const Nonce& nonce = random_nonce());

  // Bytes still needed before feed() may be called again: never more than a hello.
  size_t wanted() const { return stage_ == Stage::kDone ? 0 : wanted_ - got_.size(); }
  // At most wanted() bytes. Answers what to send, perhaps nothing. An error ends the connection, after `last`
  // is sent.
  Result<std::string> feed(std::string_view bytes, std::string* last);
  bool done() const { return stage_ == Stage::kDone; }

 private:
  enum class Stage { kHello, kProof, kDone };
  const std::string secret_;
  const Nonce mine_;
  Nonce theirs_{};
  Stage stage_ = Stage::kHello;
  size_t wanted_;
  std::string got_;
};

// The guest's side. kUnauthorized: the host has another secret; kUnsupported: it speaks another protocol, or
// is no Fathom at all; kUnavailable: it hung up.
Result<void> prove_as_guest(const Socket& socket, const std::string& secret, Deadline deadline);

}  // namespace fathom::dist
