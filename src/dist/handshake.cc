#include "dist/handshake.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/sha256.h"
#include "dist/wire.h"

namespace fathom::dist {
namespace {

constexpr std::string_view kMagic{"fathom\0d", 8};
constexpr size_t kProofBytes = 32;

std::string make_hello(const Nonce& nonce) {
  WireWriter writer;
  writer.u16(kProtocol);
  return std::string(kMagic) + writer.take() + std::string(nonce.data(), nonce.size());
}

Result<Nonce> read_hello(std::string_view bytes) {
  if (bytes.size() != HostHandshake::kHelloBytes || !bytes.starts_with(kMagic))
    return error(ErrorCode::kUnsupported, "the other end is not a node of Fathom");
  const uint16_t protocol = WireReader(bytes.substr(kMagic.size(), 2)).u16();
  if (protocol != kProtocol) {
    return error(ErrorCode::kUnsupported,
                 "the other end speaks protocol {}, this one {}: run the same version of Fathom on all nodes",
                 protocol, kProtocol);
  }
  Nonce nonce;
  std::copy_n(bytes.substr(kMagic.size() + 2).begin(), nonce.size(), nonce.begin());
  return nonce;
}

Sha256 proof(const std::string& secret, std::string_view who, const Nonce& guest, const Nonce& host) {
  std::string text(who);
  text.append(guest.data(), guest.size());
  text.append(host.data(), host.size());
  return hmac_sha256(secret, text);
}

bool proves(std::string_view given, const Sha256& wanted) {
  Sha256 digest{};
  std::copy_n(given.begin(), std::min(given.size(), digest.size()), digest.begin());
  return given.size() == digest.size() && equal_in_constant_time(digest, wanted);
}

}  // namespace

Nonce random_nonce() {
  Nonce nonce;
  size_t filled = 0;
  while (filled < nonce.size()) {
    const ssize_t got = ::getrandom(nonce.data() + filled, nonce.size() - filled, 0);
    FATHOM_CHECK(got > 0 || errno == EINTR, "getrandom: {}", std::strerror(errno));
    if (got > 0) filled += static_cast<size_t>(got);
  }
  return nonce;
}

HostHandshake::HostHandshake(std::string secret, const Nonce& nonce)
    : secret_(std::move(secret)), mine_(nonce), wanted_(kHelloBytes) {}

Result<std::string> HostHandshake::feed(std::string_view bytes, std::string* last) {
  FATHOM_CHECK_LE(bytes.size(), wanted());
  got_ += bytes;
  last->clear();
  if (wanted() > 0) return std::string();
  const std::string message = std::move(got_);
  got_.clear();
  if (stage_ == Stage::kHello) {
    auto nonce = read_hello(message);
    // To who speaks another protocol of Fathom, so that it can say so too.
    if (message.starts_with(kMagic)) *last = make_hello(mine_);
    if (!nonce.ok()) return nonce.error();
    theirs_ = *nonce;
    stage_ = Stage::kProof;
    wanted_ = kProofBytes;
    return std::exchange(*last, {});
  }
  if (!proves(message, proof(secret_, "fathom guest", theirs_, mine_))) {
    *last = std::string(1, '\0');
    return error(ErrorCode::kUnauthorized, "it has another secret than this node");
  }
  stage_ = Stage::kDone;
  const Sha256 mine = proof(secret_, "fathom host", theirs_, mine_);
  return '\1' + std::string(mine.begin(), mine.end());
}

Result<void> prove_as_guest(const Socket& socket, const std::string& secret, Deadline deadline) {
  const Nonce mine = random_nonce();
  FATHOM_TRY(send_all(socket, make_hello(mine), deadline));
  char hello[HostHandshake::kHelloBytes];
  FATHOM_TRY(receive_all(socket, hello, sizeof(hello), deadline));
  FATHOM_ASSIGN(const Nonce theirs, read_hello({hello, sizeof(hello)}));
  const Sha256 sent = proof(secret, "fathom guest", mine, theirs);
  FATHOM_TRY(send_all(socket, {reinterpret_cast<const char*>(sent.data()), sent.size()}, deadline));
  char verdict = 0;
  FATHOM_TRY(receive_all(socket, &verdict, 1, deadline));
  if (verdict != 1) return error(ErrorCode::kUnauthorized, "it has another secret than this node");
  char theirs_proof[kProofBytes];
  FATHOM_TRY(receive_all(socket, theirs_proof, sizeof(theirs_proof), deadline));
  if (!proves({theirs_proof, sizeof(theirs_proof)}, proof(secret, "fathom host", mine, theirs)))
    return error(ErrorCode::kUnauthorized, "it does not know this node's secret");
  return {};
}

}  // namespace fathom::dist
