# The one place for the language level, warnings, hardening and sanitizers.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
if(NOT CMAKE_BUILD_TYPE)
	set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
# assert() guards against our own bugs and stays in every build.
foreach(type RELEASE RELWITHDEBINFO MINSIZEREL)
	string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_${type} "${CMAKE_C_FLAGS_${type}}")
endforeach()

set(LOCUM_SANITIZE "" CACHE STRING "address;undefined or thread")
option(LOCUM_FUZZ "build the libFuzzer targets (clang only)" OFF)

add_compile_definitions(_GNU_SOURCE _FILE_OFFSET_BITS=64 LOCUM_VERSION="${PROJECT_VERSION}")
add_compile_options(
	-Wall -Wextra -Werror -Wshadow -Wvla -Wundef -Wformat=2 -Wcast-qual
	-Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wpointer-arith
	-Wwrite-strings -Wimplicit-fallthrough -Wconversion
	-fno-common -fstack-protector-strong)

if(LOCUM_SANITIZE)
	string(REPLACE ";" "," _san "${LOCUM_SANITIZE}")
	add_compile_options(-fsanitize=${_san} -fno-sanitize-recover=all -fno-omit-frame-pointer)
	if(CMAKE_C_COMPILER_ID STREQUAL GNU)
		# Needs the optimiser to know lengths; at -O0 it takes every cut that is meant for a slip.
		add_compile_options(-Wno-format-truncation)
	endif()
	add_link_options(-fsanitize=${_san})
elseif(NOT LOCUM_FUZZ)
	add_compile_options(-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
	add_link_options(-Wl,-z,relro,-z,now)
	set(CMAKE_EXE_LINKER_FLAGS "${CMAKE_EXE_LINKER_FLAGS} -pie")
endif()
if(LOCUM_FUZZ)
	add_compile_options(-fsanitize=fuzzer-no-link,address,undefined)
	add_link_options(-fsanitize=address,undefined)
endif()
