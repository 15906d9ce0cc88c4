// Text <-> token ids, as a checkpoint's tokenizer.json says: byte-level BPE with added tokens.
//
// Everything is const after load and may be called from many threads at once. Up to 16 threads that encode at
// once have a cache of 2 MiB each, lent by the process; others go without.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/merge_barriers.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/vocabulary.h"

namespace fathom::text {

class Tokenizer {
 public:
  // Reads tokenizer.json, and tokenizer_config.json and chat_template.jinja where they exist, from a model's
  // directory. kNotFound without tokenizer.json; kUnsupported, naming it, for a part Fathom does not do.
  static Result<std::unique_ptr<Tokenizer>> load(const std::string& model_dir);

  // The same from the text of tokenizer.json and tokenizer_config.json.
  static Result<std::unique_ptr<Tokenizer>> from_json(std::string_view tokenizer_json,
                                                      std::string_view config_json = "{}");

  // Added tokens in `text` become their ids. `add_special_tokens` also puts what the checkpoint asks for
  // around the text (for DeepSeek: the beginning-of-sentence token). Bytes that are not UTF-8 count as
  // U+FFFD.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const;

  // The bytes of all ids, with ill-formed parts as U+FFFD. Ids without a token are left out, special tokens
  // too if asked. Detokenizer does the same piece by piece.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;

  // The bytes that an id stands for, maybe a part of a character; empty for an id without a token. Valid
  // while the tokenizer lives.
  std::string_view token_bytes(int32_t id) const { return vocabulary_.bytes(id); }

  // The id of a token as tokenizer.json writes it ("<think>", "Ġthe").
  std::optional<int32_t> token_to_id(std::string_view token) const;

  // One more than the highest id, added tokens included.
  int32_t vocab_size() const { return vocabulary_.size(); }
  bool is_special(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < special_.size() && special_[static_cast<size_t>(id)];
  }

  // Whether the id is an added token: a marker of its own rather than a part of words.
  bool is_added(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < added_.size() && added_[static_cast<size_t>(id)];
  }

  // From tokenizer_config.json; empty where it names none.
  const std::string& bos_token() const { return bos_token_; }
  const std::string& eos_token() const { return eos_token_; }
  std::optional<int32_t> bos_id() const { return token_to_id(bos_token_); }
  std::optional<int32_t> eos_id() const { return token_to_id(eos_token_); }
  bool add_bos_token() const { return add_bos_token_; }

  // The Jinja source of the chat template, empty where there is none: chat_template.jinja, else the
  // configuration's "chat_template" (of a list of named templates the one named "default").
  const std::string& chat_template() const { return chat_template_; }

 private:
  Tokenizer();

  Result<void> parse_tokenizer(std::string_view json_text);
  Result<void> parse_added_tokens(const nlohmann::json& json);
  Result<void> parse_post_processor(const nlohmann::json& json);
  Result<void> parse_config(std::string_view json_text);
  Result<void> parse_chat_template(const nlohmann::json& json);
  Result<void> apply_sentence_tokens(const nlohmann::json& config);
  void mark_special(int32_t id);
  void encode_text(std::string_view text, std::vector<int32_t>* ids) const;

  const uint64_t serial_;  // tells this tokenizer's words from another's in a cache
  Vocabulary vocabulary_;
  std::optional<Bpe> bpe_;
  std::optional<MergeBarriers> barriers_;  // unless whole words come first ("ignore_merges")
  std::optional<Normalizer> normalizer_;
  std::optional<PreTokenizer> pre_tokenizer_;
  std::vector<AddedToken> added_tokens_;  // sorted by content
  AddedTokenFinder raw_added_;            // looked for in the text as it came
  AddedTokenFinder normalized_added_;     // looked for after normalisation
  std::vector<bool> special_;             // by id
  std::vector<bool> added_;               // by id
  std::vector<int32_t> prefix_ids_;       // what add_special_tokens puts before the text
  std::vector<int32_t> suffix_ids_;       // and after it
  std::string bos_token_;
  std::string eos_token_;
  bool add_bos_token_ = false;
  std::string chat_template_;
};

}  // namespace fathom::text
