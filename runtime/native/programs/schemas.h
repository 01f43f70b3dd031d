// The schemas of programs, and numbers for the names in them.
#pragma once

#include "flatbuffer.h"

namespace paraedge::schema {

using flatbuffer::Field;
using flatbuffer::Kind;
using flatbuffer::Schema;
using flatbuffer::Table;
using flatbuffer::Union;

#include "schemas.inc"

}  // namespace paraedge::schema
