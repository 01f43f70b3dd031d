// SHA-256 of a block of memory, in hexadecimal (FIPS 180-4).
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace paraedge {

std::string sha256_hex(std::span<const std::byte> data);

}  // namespace paraedge
