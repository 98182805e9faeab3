# SPDX-License-Identifier: MIT
# To build for another architecture with Debian's cross compilers; a preset says which in
# WEFT_CROSS_ARCH.  The libraries are those that `tests/cross/sysroot ARCHITECTURE` unpacked, and
# what is built is run by qemu-user.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES WEFT_CROSS_ARCH)
if(WEFT_CROSS_ARCH STREQUAL arm64)
	set(CMAKE_SYSTEM_PROCESSOR aarch64)
elseif(WEFT_CROSS_ARCH STREQUAL s390x)
	set(CMAKE_SYSTEM_PROCESSOR s390x)
else()
	message(FATAL_ERROR "WEFT_CROSS_ARCH is '${WEFT_CROSS_ARCH}', neither arm64 nor s390x")
endif()
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_LIBRARY_ARCHITECTURE ${CMAKE_SYSTEM_PROCESSOR}-linux-gnu)
set(CMAKE_C_COMPILER ${CMAKE_LIBRARY_ARCHITECTURE}-gcc)
set(CMAKE_CXX_COMPILER ${CMAKE_LIBRARY_ARCHITECTURE}-g++)

get_filename_component(CMAKE_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../../build/cross/${WEFT_CROSS_ARCH}
	ABSOLUTE)
if(NOT EXISTS ${CMAKE_SYSROOT})
	message(FATAL_ERROR
		"There are no libraries of ${WEFT_CROSS_ARCH} yet; run: tests/cross/sysroot ${WEFT_CROSS_ARCH}")
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${CMAKE_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR}
	${CMAKE_SYSROOT}/usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/pkgconfig:${CMAKE_SYSROOT}/usr/share/pkgconfig)
# WEFT_EMULATED tells a test that what it cannot do may be the emulator's fault
# (tests/support/emulated.h).
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-${CMAKE_SYSTEM_PROCESSOR} -E WEFT_EMULATED=${WEFT_CROSS_ARCH}
	-L ${CMAKE_SYSROOT})
