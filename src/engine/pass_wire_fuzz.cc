// Whatever bytes another node sends: they are refused, or parsed to a pass within the limits that encodes to
// the same bytes.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "engine/pass_wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fathom::engine;
  if (size < 1) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const PassLimits limits{.groups = 1 + data[0] % 3,
                          .vocab = 100,
                          .hidden = 2,
                          .max_tokens = 20,
                          .max_logit_rows = 5,
                          .max_context = 40,
                          .page_size = 4,
                          .pages = 10};
  const auto pass = parse_pass(bytes, limits);
  if (pass.ok()) FATHOM_CHECK(encode_pass(*pass) == bytes, "{} bytes", bytes.size());
  return 0;
}
