// Any bytes as text, through a tokenizer with DeepSeek-V3's pre-tokenizer: the text comes back, repaired
// where it was not UTF-8, and the detokenizer and the stop matcher give the same in pieces as in one.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/deepseek_scanner.h"
#include "text/tokenizer/detokenizer.h"
#include "text/tokenizer/stop_matcher.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tokenizer/utf8.h"

namespace {

using namespace fathom::text;

// All bytes, a few merges inside and across characters, two added tokens.
std::unique_ptr<Tokenizer> make_tokenizer() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    vocab[byte_level_encode({&c, 1})] = byte;
  }
  auto merges = nlohmann::json::array();
  const std::pair<const char*, const char*> pairs[] = {
      {"e", "r"},       {" ", " "},   {"\xE4", "\xB8"}, {"\xE4\xB8", "\xAD"},
      {"\xAD", "\xE4"}, {"er", "er"}, {"\n", "\n"}};
  for (const auto& [left, right] : pairs) {
    const std::string a = byte_level_encode(left);
    const std::string b = byte_level_encode(right);
    vocab[a + b] = 256 + merges.size();
    merges.push_back({a, b});
  }
  auto members = nlohmann::json::array();
  for (const auto& pattern : DeepseekScanner::patterns()) {
    members.push_back({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}});
  }
  members.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  const nlohmann::json json = {{"added_tokens",
                                {{{"id", 300}, {"content", "<s>"}, {"special", true}},
                                 {{"id", 301}, {"content", "<s><t>"}, {"lstrip", false}}}},
                               {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", members}}},
                               {"decoder", {{"type", "ByteLevel"}}},
                               {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
  return std::move(Tokenizer::from_json(json.dump())).value();
}

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto ids = tokenizer->encode(input, false);
  const std::string text = tokenizer->decode(ids, false);
  require(text == repair_utf8(input));

  // The bytes as ids too: any sequence of byte tokens, cut by the bytes themselves.
  const std::vector<int32_t> byte_ids(data, data + size);
  Detokenizer detokenizer(*tokenizer, false);
  static const auto stops =
      std::make_shared<const StopStrings>(std::vector<std::string>{"er", "ere", "\n\n"});
  StopMatcher cut(stops, false);
  std::string deltas;
  std::string stopped;
  for (size_t pos = 0; pos < size;) {
    const size_t count = std::min<size_t>(1 + data[pos] % 4, size - pos);
    const std::string delta = detokenizer.push(std::span(byte_ids).subspan(pos, count));
    require(is_valid_utf8(delta));
    deltas += delta;
    stopped += cut.push(delta);
    pos += count;
  }
  const std::string rest = detokenizer.finish();
  deltas += rest;
  stopped += cut.push(rest);
  stopped += cut.finish();
  require(deltas == repair_utf8(input));
  StopMatcher whole(stops, false);
  std::string expected = whole.push(deltas);
  expected += whole.finish();
  require(stopped == expected && cut.matched() == whole.matched());
  return 0;
}
