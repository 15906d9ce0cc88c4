// A call's arguments, as text from a client: an object is read entry by entry as nlohmann's parser reads it,
// and everything else is refused.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "text/encoding/python_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto fields = fathom::text::read_json_fields(text);
  // The judge compares recursively; nesting itself is no limit of the reader.
  if (std::ranges::count_if(text, [](char c) { return c == '[' || c == '{'; }) > 500) return 0;
  const auto judge = nlohmann::ordered_json::parse(text, nullptr, false);
  if (fields.has_value() != judge.is_object()) std::abort();
  if (!fields) return 0;
  if (fields->size() != judge.size()) std::abort();
  for (const auto& field : *fields) {
    const auto& value = judge.at(field.key);
    if (field.is_string != value.is_string()) std::abort();
    if (field.is_string ? field.text != value.get_ref<const std::string&>()
                        : nlohmann::ordered_json::parse(field.text) != value) {
      std::abort();
    }
  }
  return 0;
}
