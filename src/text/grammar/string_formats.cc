#include "text/grammar/string_formats.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace fathom::text {
namespace {

#define YEAR "(0\\d\\d[1-9]|0\\d[1-9]0|0[1-9]00|[1-9]\\d{3})"
#define DATE \
  YEAR "-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))"
#define TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define OCTET "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define LABEL "[a-zA-Z0-9]{1,10}(-[a-zA-Z0-9]{1,10}){0,2}"
#define NAME "[a-zA-Z0-9_+-]{1,20}"
#define N "\\d{1,4}"
#define DURATION_TIME "T(" N "H(" N "M(" N "S)?)?|" N "M(" N "S)?|" N "S)"
#define DURATION_DATE "(" N "D|" N "M(" N "D)?|" N "Y(" N "M(" N "D)?)?)"

// Each gives a part of what the format allows, the ordinary one: 29 February and the year 0000 are left out.
constexpr std::pair<std::string_view, std::string_view> kFormats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration", "P(" N "W|" DURATION_TIME "|" DURATION_DATE "(" DURATION_TIME ")?)"},
    {"email", NAME "(\\." NAME "){0,2}@" LABEL "(\\." LABEL "){1,3}"},
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

bool is_string_format(std::string_view name) {
  static constexpr std::string_view kOthers[] = {"idn-email",    "idn-hostname",          "uri-reference",
                                                 "iri",          "iri-reference",         "uri-template",
                                                 "json-pointer", "relative-json-pointer", "regex"};
  return !string_format(name).empty() ||
         std::find(std::begin(kOthers), std::end(kOthers), name) != std::end(kOthers);
}

}  // namespace fathom::text
