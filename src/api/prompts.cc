#include "api/prompts.h"

#include "text/tokenizer/tokenizer.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

ApiError wrong(std::string_view field, std::string_view message) {
  return {400, fmt::format("{}: {}", field, message), std::string(field), {}};
}

Refusal read_id_list(const ServiceContext& context, const std::string& field, const ordered_json& list,
                     std::vector<int32_t>* out) {
  if (list.empty()) return wrong(field, "the list is empty, expected at least one token id");
  out->reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const ordered_json& id = list[i];
    const bool good =
        id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(context.card.vocab_size);
    if (!good) {
      return wrong(fmt::format("{}[{}]", field, i), fmt::format("got {}, expected a token id from 0 to {}",
                                                                describe(id), context.card.vocab_size - 1));
    }
    out->push_back(id.get<int32_t>());
  }
  return std::nullopt;
}

Refusal check_batch(const ServiceContext& context, std::string_view field, size_t count) {
  if (count == 0) return wrong(field, "the list is empty, expected at least one prompt");
  const auto limit = static_cast<size_t>(context.options.limits.batch);
  if (count <= limit) return std::nullopt;
  return wrong(field, fmt::format("got {} prompts, expected at most {}", count, limit));
}

}  // namespace

std::vector<int32_t> encode_prompt(const text::Tokenizer& tokenizer, std::string_view text,
                                   bool add_special_tokens) {
  std::vector<int32_t> ids = tokenizer.encode(text, add_special_tokens);
  const std::optional<int32_t> bos = tokenizer.bos_id();
  if (add_special_tokens && bos && ids.size() >= 2 && ids[0] == *bos && ids[1] == *bos)
    ids.erase(ids.begin());
  return ids;
}

std::optional<std::string> small_pool(const ModelCard& card) {
  if (card.model_context <= card.context_length) return std::nullopt;
  return fmt::format("the served context of {} tokens (the KV pool, --max-total-tokens; the model has {})",
                     card.context_length, card.model_context);
}

ApiError input_too_long(const ModelCard& card, std::string_view tokens) {
  const std::string context =
      small_pool(card).value_or(fmt::format("the model's context length ({} tokens)", card.context_length));
  return {400,
          fmt::format("The input ({} tokens) is longer than {}.", tokens, context),
          {},
          "context_length_exceeded"};
}

Refusal check_text_length(const ServiceContext& context, size_t bytes) {
  const size_t fewest = context.guard->fewest_tokens(bytes);
  if (fewest < static_cast<size_t>(context.card.context_length)) return std::nullopt;
  return input_too_long(context.card, fmt::format("at least {}", fewest));
}

Refusal read_texts(const ServiceContext& context, std::string_view field, const ordered_json& value,
                   Prompts* out) {
  out->batch = value.is_array();
  const size_t count = out->batch ? value.size() : 1;
  if (Refusal refusal = check_batch(context, field, count)) return refusal;
  if (context.tokenizer == nullptr)
    return wrong(field, "this server runs without a tokenizer; send token ids");
  for (size_t i = 0; i < count; ++i) {
    const ordered_json& text = out->batch ? value[i] : value;
    const std::string name = out->batch ? fmt::format("{}[{}]", field, i) : std::string(field);
    if (!text.is_string()) return wrong(name, fmt::format("got {}, expected a string", describe(text)));
    if (Refusal refusal = check_text_length(context, text.get_ref<const std::string&>().size()))
      return refusal;
    out->ids.push_back(encode_prompt(*context.tokenizer, text.get_ref<const std::string&>(), true));
    if (out->ids.back().empty()) return wrong(name, "the prompt is empty: it has no tokens");
    out->texts.push_back(text.get<std::string>());
  }
  return std::nullopt;
}

Refusal read_ids(const ServiceContext& context, std::string_view field, const ordered_json& value,
                 Prompts* out) {
  if (!value.is_array())
    return wrong(field, fmt::format("got {}, expected a list of token ids", describe(value)));
  out->batch = !value.empty() && value[0].is_array();
  const size_t count = out->batch ? value.size() : 1;
  if (Refusal refusal = check_batch(context, field, count)) return refusal;
  for (size_t i = 0; i < count; ++i) {
    const ordered_json& list = out->batch ? value[i] : value;
    const std::string name = out->batch ? fmt::format("{}[{}]", field, i) : std::string(field);
    if (!list.is_array())
      return wrong(name, fmt::format("got {}, expected a list of token ids", describe(list)));
    if (Refusal refusal = read_id_list(context, name, list, &out->ids.emplace_back())) return refusal;
  }
  return std::nullopt;
}

Refusal read_prompts(const ServiceContext& context, std::string_view field, const ordered_json& value,
                     Prompts* out) {
  if (value.is_string()) return read_texts(context, field, value, out);
  if (!value.is_array()) {
    return wrong(field, fmt::format("got {}, expected a string, a list of strings, a list of token ids, or a "
                                    "list of lists of token ids",
                                    describe(value)));
  }
  if (value.empty()) return wrong(field, "the list is empty, expected at least one prompt");
  return value[0].is_string() ? read_texts(context, field, value, out) : read_ids(context, field, value, out);
}

}  // namespace fathom::api
