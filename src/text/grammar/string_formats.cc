#include "text/grammar/string_formats.h"

#include <utility>

namespace fathom::text {
namespace {

#define DATE \
  "\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))"
#define TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define OCTET "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define LABEL "[a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?"

// Each gives a part of what the format allows, the ordinary one: 29 February, for one, is left out.
constexpr std::pair<std::string_view, std::string_view> kFormats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration", "P(\\d{1,4}D|\\d{1,4}W|(\\d{1,4}D)?T(\\d{1,4}H)?(\\d{1,4}M)?\\d{1,4}S)"},
    {"email", "[a-zA-Z0-9_+-]+(\\.[a-zA-Z0-9_+-]+)*@" LABEL "(\\." LABEL ")+"},
    {"hostname", LABEL "(\\." LABEL "){0,6}"},
    {"ipv4", OCTET "(\\." OCTET "){3}"},
    {"ipv6", "([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}"},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"uri", "[a-z][a-z0-9+.-]{0,15}://" LABEL "(\\." LABEL
            "){0,6}(:\\d{1,5})?(/[a-zA-Z0-9_.~-]*)*(\\?[a-zA-Z0-9_.~=&-]*)?"},
};

}  // namespace

std::string string_format(std::string_view name) {
  for (const auto& [known, regex] : kFormats) {
    if (known == name) return std::string(regex);
  }
  return {};
}

std::string string_format_names() {
  std::string names;
  for (const auto& [name, unused] : kFormats) names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

}  // namespace fathom::text
