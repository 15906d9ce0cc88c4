#include "http/message.h"

#include <algorithm>

#include "http/url.h"

namespace fathom::http {

const std::string* find_header(const Headers& headers, std::string_view name) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; };
  for (const auto& [key, value] : headers) {
    if (std::equal(key.begin(), key.end(), name.begin(), name.end(),
                   [&](char a, char b) { return lower(a) == lower(b); })) {
      return &value;
    }
  }
  return nullptr;
}

std::optional<std::string> Request::query_param(std::string_view name) const {
  return find_query_param(query, name);
}

}  // namespace fathom::http
