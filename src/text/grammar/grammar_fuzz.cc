// Any schema, regular expression or EBNF: compiled or refused, never more. What compiles gives masks that are
// not empty, and allowed tokens always lead on.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "text/grammar/grammar_cache.h"
#include "text/grammar/grammars.h"
#include "text/tokenizer/byte_level.h"

namespace fathom::text {
namespace {

// The 256 bytes, a few words, an end.
const Tokenizer& small_tokenizer() {
  static const auto* tokenizer = [] {
    nlohmann::json vocab = nlohmann::json::object();
    for (int byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      vocab[byte_level_encode({&c, 1})] = byte;
    }
    for (const char* word : {"{\"", "\":", "\",", "\"}", "true", "name", "12", "]}"})
      vocab[byte_level_encode(word)] = vocab.size();
    const nlohmann::json json = {
        {"added_tokens",
         {{{"id", vocab.size()}, {"content", "<eos>"}, {"special", true}, {"normalized", false}}}},
        {"normalizer", nullptr},
        {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
        {"post_processor", nullptr},
        {"decoder", {{"type", "ByteLevel"}}},
        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
    return new std::unique_ptr<Tokenizer>(Tokenizer::from_json(json.dump()).value());
  }();
  return **tokenizer;
}

Result<Automaton> compile(uint8_t kind, std::string_view text) {
  if (kind % 3 == 0) return regex_grammar(text);
  if (kind % 3 == 1) return ebnf_grammar(text);
  const auto schema = nlohmann::ordered_json::parse(text, nullptr, false);
  if (schema.is_discarded()) return error(ErrorCode::kInvalidArgument, "no JSON");
  return json_schema_grammar(schema, kind >= 0x80);
}

}  // namespace
}  // namespace fathom::text

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fathom;
  using namespace fathom::text;
  if (size < 2 || size > 4096) return 0;
  static const auto tokens = std::make_shared<GrammarTokens>(
      small_tokenizer(), std::vector<int32_t>{small_tokenizer().vocab_size() - 1});
  Result<Automaton> automaton = compile(data[0], {reinterpret_cast<const char*>(data) + 2, size - 2});
  if (!automaton.ok() || automaton->states.size() > 20'000) return 0;
  const auto mask = GrammarMaskSource(std::make_shared<Grammar>(tokens, std::move(*automaton)), -1).begin();
  std::vector<uint64_t> allowed(num_mask_words(small_tokenizer().vocab_size()));
  uint32_t state = data[1];
  for (int i = 0; i < 24; ++i) {
    if (!mask->fill(allowed).ok()) return 0;
    std::vector<int32_t> choices;
    for (size_t word = 0; word < allowed.size(); ++word) {
      for (uint64_t bits = allowed[word]; bits != 0; bits &= bits - 1)
        choices.push_back(static_cast<int32_t>(word * 64) + std::countr_zero(bits));
    }
    FATHOM_CHECK(!choices.empty(), "no token is allowed");
    state = state * 1664525U + 1013904223U;
    mask->accept(choices[(state >> 8) % choices.size()]);
  }
  return 0;
}
