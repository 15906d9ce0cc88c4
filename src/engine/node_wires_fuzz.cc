// Whatever bytes node 0 sends to other nodes' engines, or their leaders send to node 0: they are refused, or
// parsed to what encodes to bytes that are parsed to the same.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "engine/leader_wire.h"
#include "engine/plan_wire.h"

namespace {

using namespace fathom;
using namespace fathom::engine;

std::string encode(const EngineMessage& message) {
  if (message.step) return encode_step(message.step->group, message.step->plan, message.step->eager);
  if (message.masks) return encode_masks(message.masks->group, message.masks->step, message.masks->rows);
  return encode_pass_begun(message.pass->pass, message.pass->idle);
}

std::string encode(const LeaderMessage& message) {
  if (message.want) return encode_want(message.group, *message.want);
  if (message.question) return encode_question(message.group, *message.question);
  return encode_answer(message.group, message.answer->result, message.answer->clock);
}

template <class Parse>
void check(std::string_view bytes, const Parse& parse) {
  const auto first = parse(bytes);
  if (!first.ok()) return;
  const std::string once = encode(*first);
  const auto second = parse(once);
  FATHOM_CHECK(second.ok() && encode(*second) == once, "{} bytes", bytes.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const int32_t groups = 1 + data[0] / 2 % 3;
  const ExecutorLimits limits{.max_slots = 3,
                              .num_pages = 10,
                              .page_size = 4,
                              .max_context = 40,
                              .vocab_size = 100,
                              .max_step_tokens = 20,
                              .max_drafts = 3};
  if (data[0] % 2 == 0) {
    check(bytes, [&](std::string_view from) { return parse_engine_message(from, groups, limits); });
  } else {
    check(bytes, [&](std::string_view from) { return parse_leader_message(from, groups, limits); });
  }
  return 0;
}
