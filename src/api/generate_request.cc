#include "api/generate_request.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxLogprobIds = 1024;
constexpr int32_t kDefaultMaxNewTokens = 128;

Refusal read_sampling_params(const ServiceContext& context, const ordered_json& params,
                             const std::string& path, NativeSampling* out) {
  if (!params.is_object()) {
    return ApiError{400, fmt::format("{}: got {}, expected an object", path, describe(params)), path, {}};
  }
  Fields fields(params, path + ".", "sampling parameters", context.field_log);
  int32_t limit = 0;
  // Null means until the context is full; absent means a default that shrinks to what the context has room
  // for.
  const bool given = fields.int32("max_new_tokens", 0, INT32_MAX, &limit);
  if (given) out->sampling.max_new_tokens = limit;
  if (!params.contains("max_new_tokens")) out->default_length = kDefaultMaxNewTokens;
  read_sampling(context, Dialect::kNative, fields, &out->sampling);
  int32_t interval = 1;
  if (fields.int32("stream_interval", 1, INT32_MAX, &interval) && interval != 1) {
    fields.fail(unsupported(path + ".stream_interval", "only 1 is available"));
  }
  fields.accept({"spaces_between_special_tokens"});  // DeepSeek's tokenizers never put any
  return fields.finish();
}

void read_all_sampling(const ServiceContext& context, Fields& fields, GenerateBatch* out) {
  const ordered_json* value = fields.any("sampling_params");
  if (value == nullptr || !value->is_array()) {
    const ordered_json none = ordered_json::object();
    Refusal refusal = read_sampling_params(context, value == nullptr ? none : *value, "sampling_params",
                                           &out->sampling.emplace_back());
    if (refusal) fields.fail(*refusal);
    return;
  }
  if (value->size() != out->items.size()) {
    return fields.fail("sampling_params",
                       fmt::format("got a list of {} for {} prompts", value->size(), out->items.size()));
  }
  for (size_t i = 0; i < value->size(); ++i) {
    Refusal refusal = read_sampling_params(context, (*value)[i], fmt::format("sampling_params[{}]", i),
                                           &out->sampling.emplace_back());
    if (refusal) return fields.fail(*refusal);
    out->items[i].sampling = i;
  }
}

// Calls `read(item, value)` for each item with its own element of a list, or the one value for all. `read`
// returns what it expected when the value is wrong.
template <class Read>
void read_per_item(Fields& fields, std::string_view name, GenerateBatch* out, bool value_is_list, Read read) {
  const ordered_json* value = fields.any(name);
  if (value == nullptr) return;
  const bool spread = value->is_array() && (!value_is_list || (!value->empty() && (*value)[0].is_array()));
  if (spread && value->size() != out->items.size()) {
    return fields.fail(name,
                       fmt::format("got a list of {} for {} prompts", value->size(), out->items.size()));
  }
  for (size_t i = 0; i < out->items.size(); ++i) {
    const ordered_json& one = spread ? (*value)[i] : *value;
    if (one.is_null()) continue;
    const std::string expected = read(out->items[i], one);
    if (expected.empty()) continue;
    return fields.fail_type(spread ? fmt::format("{}[{}]", name, i) : std::string(name), expected, one);
  }
}

// An integer in [min, max], or false.
bool to_int(const ordered_json& value, int64_t min, int64_t max, int32_t* out) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return false;
  const auto got = value.get<int64_t>();
  if (got < min || got > max) return false;
  *out = static_cast<int32_t>(got);
  return true;
}

void read_logprob_fields(const ServiceContext& context, Fields& fields, GenerateBatch* out) {
  read_per_item(fields, "return_logprob", out, false, [](GenerateItem& item, const ordered_json& value) {
    if (!value.is_boolean()) return std::string("true or false");
    item.logprobs.wanted = value.get<bool>();
    return std::string();
  });
  read_per_item(fields, "logprob_start_len", out, false, [](GenerateItem& item, const ordered_json& value) {
    const auto last = static_cast<int64_t>(item.prompt.size()) - 1;
    if (to_int(value, -1, last, &item.logprobs.start)) return std::string();
    return fmt::format("-1 (output only) or a prompt position up to {}", last);
  });
  read_per_item(fields, "top_logprobs_num", out, false, [](GenerateItem& item, const ordered_json& value) {
    if (to_int(value, 0, kMaxNativeLogprobs, &item.logprobs.top)) return std::string();
    return fmt::format("an integer from 0 to {}", kMaxNativeLogprobs);
  });
  const int32_t vocab = context.card.vocab_size;
  read_per_item(fields, "token_ids_logprob", out, true,
                [vocab](GenerateItem& item, const ordered_json& value) {
                  const std::string expected =
                      fmt::format("a list of up to {} token ids below {}", kMaxLogprobIds, vocab);
                  if (!value.is_array() || value.size() > kMaxLogprobIds) return expected;
                  item.logprobs.ids = !value.empty();
                  for (const ordered_json& id : value) {
                    if (!to_int(id, 0, vocab - 1, &item.logprob_ids.emplace_back())) return expected;
                  }
                  return std::string();
                });
  bool text = false;
  fields.boolean("return_text_in_logprobs", &text);
  for (size_t i = 0; i < out->items.size(); ++i) {
    NativeLogprobs& logprobs = out->items[i].logprobs;
    logprobs.text = text;
    if (!logprobs.wanted && (logprobs.top > 0 || logprobs.ids)) {
      return fields.fail(logprobs.top > 0 ? "top_logprobs_num" : "token_ids_logprob",
                         "needs return_logprob to be true");
    }
  }
}

// The bounds may stand in the sampling parameters or beside them; the processor stands beside its parameters.
void read_logit_rules(const ServiceContext& context, Fields& fields, GenerateBatch* out) {
  for (GenerateItem& item : out->items) item.rules = out->sampling[item.sampling].sampling.rules;
  for (const char* name : {"thinking_budget", "max_thinking_tokens"}) {
    read_per_item(fields, name, out, false, [](GenerateItem& item, const ordered_json& value) {
      int32_t budget = 0;
      const bool good = to_int(value, 0, INT32_MAX, &budget);
      if (!good) return std::string("a number of tokens");
      if (item.rules.thinking_budget && *item.rules.thinking_budget != budget) {
        return fmt::format("the {} of the request's other field", *item.rules.thinking_budget);
      }
      item.rules.thinking_budget = budget;
      return std::string();
    });
  }
  const ordered_json* processors = fields.any("custom_logit_processor");
  if (processors != nullptr && processors->is_array() && processors->size() != out->items.size()) {
    return fields.fail("custom_logit_processor",
                       fmt::format("got a list of {} for {} prompts", processors->size(), out->items.size()));
  }
  for (size_t i = 0; i < out->items.size() && !fields.failed(); ++i) {
    GenerateItem& item = out->items[i];
    const bool list = processors != nullptr && processors->is_array();
    const ordered_json processor = processors == nullptr ? ordered_json()
                                   : list                ? (*processors)[i]
                                                         : *processors;
    const ordered_json& params = out->sampling[item.sampling].sampling.custom_params;
    if (processor.is_null()) {
      if (params.is_null()) continue;
      return fields.fail("sampling_params.custom_params",
                         "belongs to custom_logit_processor, which is not there");
    }
    const std::string name = list ? fmt::format("custom_logit_processor[{}]", i) : "custom_logit_processor";
    if (Refusal refusal = read_logit_processor(context, name, processor, params, &item.rules)) {
      fields.fail(*refusal);
    }
  }
}

void read_rids(Fields& fields, GenerateBatch* out) {
  const ordered_json* rid = fields.any("rid");
  const bool batch = out->items.size() > 1;
  if (rid == nullptr) {
    for (GenerateItem& item : out->items) item.rid = random_id();
    return;
  }
  const auto good = [](const ordered_json& id) {
    return id.is_string() && !id.get_ref<const std::string&>().empty() &&
           id.get_ref<const std::string&>().size() <= kMaxIdBytes;
  };
  const bool list = rid->is_array() && rid->size() == out->items.size();
  if (!list && !good(*rid)) {
    return fields.fail_type(
        "rid", fmt::format("a string of 1 to {} bytes, or a list with one a prompt", kMaxIdBytes), *rid);
  }
  for (size_t i = 0; i < out->items.size(); ++i) {
    const ordered_json& id = list ? (*rid)[i] : *rid;
    if (!good(id)) {
      return fields.fail_type(fmt::format("rid[{}]", i),
                              fmt::format("a string of 1 to {} bytes", kMaxIdBytes), id);
    }
    out->items[i].rid = id.get<std::string>();
    if (batch && !list) out->items[i].rid += fmt::format("_{}", i);
  }
}

void read_native_prompts(const ServiceContext& context, Fields& fields, GenerateBatch* out) {
  const ordered_json* text = fields.any("text");
  const ordered_json* ids = fields.any("input_ids");
  fields.refuse({"input_embeds"}, "embeddings as input are not available");
  if (fields.failed()) return;
  if ((text == nullptr) == (ids == nullptr)) {
    return fields.fail(text == nullptr ? "text" : "input_ids", "expected either text or input_ids");
  }
  Prompts prompts;
  Refusal refusal = text != nullptr ? read_texts(context, "text", *text, &prompts)
                                    : read_ids(context, "input_ids", *ids, &prompts);
  if (refusal) return fields.fail(*refusal);
  out->is_list = prompts.batch;
  for (std::vector<int32_t>& prompt : prompts.ids) out->items.emplace_back().prompt = std::move(prompt);
}

}  // namespace

Refusal read_generate_request(const ServiceContext& context, const ordered_json& body, GenerateBatch* out) {
  Fields fields(body, "", "request", context.field_log);
  std::string model;
  fields.string("model", 4096, &model);
  if (!fields.failed()) {
    if (Refusal refusal = check_model(context, model)) return refusal;
  }
  read_native_prompts(context, fields, out);
  if (fields.failed()) return fields.finish();
  read_all_sampling(context, fields, out);
  read_rids(fields, out);
  read_logprob_fields(context, fields, out);
  if (!fields.failed()) read_logit_rules(context, fields, out);
  fields.boolean("stream", &out->stream);
  fields.boolean("return_prompt_token_ids", &out->return_prompt_token_ids);
  read_scheduling_options(fields, &out->options);
  fields.accept({"log_metrics"});
  fields.refuse({"modalities"}, "is not available: the model reads and writes text only");
  refuse_unavailable(fields);
  if (Refusal refusal = fields.finish()) return refusal;

  int64_t choices = 0;
  for (const GenerateItem& item : out->items) choices += out->sampling[item.sampling].sampling.n;
  if (choices > context.options.limits.batch) {
    return ApiError{400,
                    fmt::format("sampling_params.n: prompts x n is {}, expected at most {}", choices,
                                context.options.limits.batch),
                    "sampling_params.n",
                    {}};
  }
  out->is_list = out->is_list || choices > 1;
  return std::nullopt;
}

}  // namespace fathom::api
