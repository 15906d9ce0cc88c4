// SHA-256 (FIPS 180-4) and HMAC with it (RFC 2104).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace fathom {

using Sha256 = std::array<uint8_t, 32>;
Sha256 sha256(std::string_view bytes);
Sha256 hmac_sha256(std::string_view key, std::string_view message);

// Its time does not depend on the contents.
bool equal_in_constant_time(const Sha256& a, const Sha256& b);

}  // namespace fathom
