// Whatever bytes another node sends: they are refused, or parsed to what encodes to the same bytes.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "dist/handshake.h"
#include "dist/wire.h"

namespace fathom::dist {
namespace {

// As a stranger's bytes reach the host's side of a handshake, in pieces.
void shake_hands(std::string_view bytes, size_t piece) {
  HostHandshake handshake("a secret of sixteen bytes", Nonce{});
  while (!bytes.empty() && !handshake.done()) {
    const auto some = bytes.substr(0, std::min(piece, handshake.wanted()));
    bytes.remove_prefix(some.size());
    std::string last;
    const auto answer = handshake.feed(some, &last);
    FATHOM_CHECK_LE(answer.ok() ? answer->size() : last.size(), HostHandshake::kHelloBytes);
    if (!answer.ok()) return;
  }
  FATHOM_CHECK(!handshake.done(), "who does not know the secret was let in");
}

}  // namespace
}  // namespace fathom::dist

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fathom::dist;
  if (size < 2) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  switch (data[0] % 5) {
    case 0:
      if (const auto greeting = parse_greeting(bytes); greeting.ok())
        FATHOM_CHECK(encode(*greeting) == bytes, "greeting");
      break;
    case 1:
      if (const auto table = parse_table(bytes); table.ok()) FATHOM_CHECK(encode(*table) == bytes, "table");
      break;
    case 2:
      if (const auto message = parse_node_message(bytes); message.ok())
        FATHOM_CHECK(encode(*message) == bytes, "node message");
      break;
    case 3: {
      FrameBytes frame{};
      std::copy_n(bytes.begin(), std::min(bytes.size(), frame.size()), frame.begin());
      frame[3] = 0;  // unused
      FATHOM_CHECK(encode(parse_frame(frame)) == frame, "frame");
      break;
    }
    default:
      shake_hands(bytes, data[1] % 64 + 1);
  }
  return 0;
}
