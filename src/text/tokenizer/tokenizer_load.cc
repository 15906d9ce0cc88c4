// How a Tokenizer is made from tokenizer.json, tokenizer_config.json and chat_template.jinja.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom::text {
namespace {

Result<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return error(ErrorCode::kNotFound, "cannot open {}", path.string());
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return error(ErrorCode::kDataLoss, "cannot read {}", path.string());
  return content;
}

Result<nlohmann::json> parse_object(std::string_view text) {
  auto json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) return error(ErrorCode::kInvalidArgument, "not valid JSON");
  if (!json.is_object()) return error(ErrorCode::kInvalidArgument, "not a JSON object");
  return json;
}

Result<AddedToken> parse_added_token(const nlohmann::json& json) {
  AddedToken token;
  FATHOM_ASSIGN(token.id, json_token_id(json_field(json, "id")));
  FATHOM_ASSIGN(token.content, json_string(json, "content"));
  if (token.content.empty()) return error(ErrorCode::kInvalidArgument, "added token {} is empty", token.id);
  FATHOM_ASSIGN(token.special, json_bool(json, "special", false));
  FATHOM_ASSIGN(token.normalized, json_bool(json, "normalized", !token.special));
  FATHOM_ASSIGN(token.single_word, json_bool(json, "single_word", false));
  FATHOM_ASSIGN(token.lstrip, json_bool(json, "lstrip", false));
  FATHOM_ASSIGN(token.rstrip, json_bool(json, "rstrip", false));
  return token;
}

// "bos_token": "<s>", or the same as an object with "content"; empty for null.
Result<std::string> parse_token_name(const nlohmann::json& config, std::string_view name) {
  const auto& value = json_field(config, name);
  if (value.is_null()) return std::string();
  return value.is_object() ? json_string(value, "content") : json_string(config, name);
}

// The only decoder of byte-level BPE: each token is its bytes.
Result<void> check_decoder(const nlohmann::json& decoder) {
  const auto& type = json_field(decoder, "type");
  if (type == "Sequence") {
    const auto& members = json_field(decoder, "decoders");
    if (members.is_array() && members.size() == 1 && json_field(members[0], "type") == "ByteLevel") return {};
  }
  if (type == "ByteLevel") return {};
  return error(ErrorCode::kUnsupported, "decoder {} is not supported, only ByteLevel", type.dump());
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::string& model_dir) {
  const std::filesystem::path dir(model_dir);
  FATHOM_ASSIGN(const std::string tokenizer_json, read_file(dir / "tokenizer.json"));
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer);
  if (auto parsed = tokenizer->parse_tokenizer(tokenizer_json); !parsed.ok()) {
    return parsed.error().with_context((dir / "tokenizer.json").string());
  }
  std::error_code ignored;
  if (std::filesystem::exists(dir / "tokenizer_config.json", ignored)) {
    FATHOM_ASSIGN(const std::string config, read_file(dir / "tokenizer_config.json"));
    if (auto parsed = tokenizer->parse_config(config); !parsed.ok()) {
      return parsed.error().with_context((dir / "tokenizer_config.json").string());
    }
  }
  if (std::filesystem::exists(dir / "chat_template.jinja", ignored)) {
    FATHOM_ASSIGN(tokenizer->chat_template_, read_file(dir / "chat_template.jinja"));
  }
  return tokenizer;
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_json(std::string_view tokenizer_json,
                                                        std::string_view config_json) {
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer);
  FATHOM_TRY(tokenizer->parse_tokenizer(tokenizer_json));
  FATHOM_TRY(tokenizer->parse_config(config_json));
  return tokenizer;
}

Result<void> Tokenizer::parse_tokenizer(std::string_view json_text) {
  FATHOM_ASSIGN(const nlohmann::json json, parse_object(json_text));
  FATHOM_ASSIGN(bpe_, Bpe::parse(json_field(json, "model"), &vocabulary_));
  if (!bpe_->takes_whole_words()) barriers_.emplace(vocabulary_);
  FATHOM_ASSIGN(normalizer_, Normalizer::parse(json_field(json, "normalizer")));
  FATHOM_ASSIGN(pre_tokenizer_, PreTokenizer::parse(json_field(json, "pre_tokenizer")));
  FATHOM_TRY(check_decoder(json_field(json, "decoder")));
  FATHOM_TRY(parse_added_tokens(json_field(json, "added_tokens")));
  const auto& post_processor = json_field(json, "post_processor");
  if (!post_processor.is_null()) FATHOM_TRY(parse_post_processor(post_processor));
  return {};
}

Result<void> Tokenizer::parse_added_tokens(const nlohmann::json& json) {
  if (json.is_null()) return {};
  if (!json.is_array()) return error(ErrorCode::kInvalidArgument, "'added_tokens' must be an array");
  for (const auto& member : json) {
    FATHOM_ASSIGN(AddedToken token, parse_added_token(member));
    const auto bytes = byte_level_decode(token.content);
    const std::string_view token_bytes = bytes ? *bytes : std::string_view(token.content);
    if (!vocabulary_.set_bytes(token.id, token_bytes) && vocabulary_.bytes(token.id) != token_bytes) {
      return error(ErrorCode::kInvalidArgument, "added token '{}' has the id {} of another token",
                   token.content, token.id);
    }
    if (token.special) mark_special(token.id);
    if (added_.size() <= static_cast<size_t>(token.id)) added_.resize(static_cast<size_t>(token.id) + 1);
    added_[static_cast<size_t>(token.id)] = true;
    added_tokens_.push_back(std::move(token));
  }
  std::sort(added_tokens_.begin(), added_tokens_.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  for (size_t i = 0; i < added_tokens_.size(); ++i) {
    AddedToken token = added_tokens_[i];
    if (i > 0 && added_tokens_[i - 1].content == token.content) {
      return error(ErrorCode::kInvalidArgument, "added token '{}' is given twice", token.content);
    }
    if (!token.normalized) {
      raw.push_back(std::move(token));
    } else {
      token.content = normalizer_->apply(token.content);
      if (!token.content.empty()) normalized.push_back(std::move(token));
    }
  }
  raw_added_ = AddedTokenFinder(std::move(raw));
  normalized_added_ = AddedTokenFinder(std::move(normalized));
  return {};
}

Result<void> Tokenizer::parse_post_processor(const nlohmann::json& json) {
  FATHOM_ASSIGN(const std::string type, json_string(json, "type"));
  if (type == "ByteLevel") return {};  // it only trims offsets, which Fathom does not keep
  if (type == "Sequence") {
    const auto& members = json_field(json, "processors");
    if (!members.is_array()) return error(ErrorCode::kInvalidArgument, "'processors' must be an array");
    for (const auto& member : members) {
      if (json_field(member, "type") == "Sequence") {
        return error(ErrorCode::kUnsupported, "a post-processor Sequence in a Sequence is not supported");
      }
      FATHOM_TRY(parse_post_processor(member));
    }
    return {};
  }
  if (type != "TemplateProcessing") {
    return error(ErrorCode::kUnsupported, "post-processor '{}' is not supported", type);
  }
  const auto& parts = json_field(json, "single");
  if (!parts.is_array()) return error(ErrorCode::kInvalidArgument, "'single' must be an array");
  bool after_text = false;
  for (const auto& part : parts) {
    const auto& special = json_field(part, "SpecialToken");
    if (special.is_null()) {
      if (json_field(part, "Sequence").is_null() || after_text) {
        return error(ErrorCode::kUnsupported, "'single' must hold SpecialTokens and one Sequence");
      }
      after_text = true;
      continue;
    }
    FATHOM_ASSIGN(const std::string name, json_string(special, "id"));
    const auto& ids = json_field(json_field(json_field(json, "special_tokens"), name), "ids");
    if (!ids.is_array()) {
      return error(ErrorCode::kInvalidArgument, "'special_tokens' has no ids for '{}'", name);
    }
    for (const auto& member : ids) {
      FATHOM_ASSIGN(const int32_t id, json_token_id(member));
      (after_text ? suffix_ids_ : prefix_ids_).push_back(id);
    }
  }
  if (!after_text) return error(ErrorCode::kInvalidArgument, "'single' has no Sequence");
  return {};
}

Result<void> Tokenizer::parse_config(std::string_view json_text) {
  FATHOM_ASSIGN(const nlohmann::json config, parse_object(json_text));
  FATHOM_ASSIGN(bos_token_, parse_token_name(config, "bos_token"));
  FATHOM_ASSIGN(eos_token_, parse_token_name(config, "eos_token"));
  FATHOM_ASSIGN(const std::string pad_token, parse_token_name(config, "pad_token"));
  for (const auto& token : {bos_token_, eos_token_, pad_token}) {
    if (token.empty()) continue;
    if (const auto id = token_to_id(token)) mark_special(*id);
  }
  FATHOM_TRY(apply_sentence_tokens(config));
  return parse_chat_template(json_field(config, "chat_template"));
}

// add_bos_token and add_eos_token, where given, stand in place of the post-processor of tokenizer.json. The
// Llama classes, which DeepSeek uses, imply a beginning-of-sentence token.
Result<void> Tokenizer::apply_sentence_tokens(const nlohmann::json& config) {
  const auto& tokenizer_class = json_field(config, "tokenizer_class");
  const bool is_llama = tokenizer_class == "LlamaTokenizerFast" || tokenizer_class == "LlamaTokenizer";
  FATHOM_ASSIGN(add_bos_token_, json_bool(config, "add_bos_token", is_llama));
  FATHOM_ASSIGN(const bool add_eos_token, json_bool(config, "add_eos_token", false));
  if (!is_llama && json_field(config, "add_bos_token").is_null() &&
      json_field(config, "add_eos_token").is_null()) {
    return {};
  }
  prefix_ids_.clear();
  suffix_ids_.clear();
  if (add_bos_token_) {
    if (!bos_id())
      return error(ErrorCode::kInvalidArgument, "add_bos_token: '{}' is not a token", bos_token_);
    prefix_ids_.push_back(*bos_id());
  }
  if (add_eos_token) {
    if (!eos_id())
      return error(ErrorCode::kInvalidArgument, "add_eos_token: '{}' is not a token", eos_token_);
    suffix_ids_.push_back(*eos_id());
  }
  return {};
}

Result<void> Tokenizer::parse_chat_template(const nlohmann::json& json) {
  if (json.is_null()) return {};
  if (json.is_string()) {
    chat_template_ = json.get<std::string>();
    return {};
  }
  if (!json.is_array()) {
    return error(ErrorCode::kInvalidArgument,
                 "'chat_template' must be a string or an array of named templates");
  }
  for (const auto& member : json) {
    FATHOM_ASSIGN(const std::string name, json_string(member, "name"));
    FATHOM_ASSIGN(std::string source, json_string(member, "template"));
    if (name == "default") chat_template_ = std::move(source);
  }
  return {};
}

void Tokenizer::mark_special(int32_t id) {
  if (special_.size() <= static_cast<size_t>(id)) special_.resize(static_cast<size_t>(id) + 1);
  special_[static_cast<size_t>(id)] = true;
}

}  // namespace fathom::text
