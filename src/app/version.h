// The version that --version and /server_info tell.
#pragma once

namespace fathom::app {
inline constexpr const char* kVersion = "0.1.0";
}  // namespace fathom::app
