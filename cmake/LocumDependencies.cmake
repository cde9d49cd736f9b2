# One job, one library; the reasons stand in docs/DESIGN.md.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
foreach(lib IN ITEMS libsodium libzstd sqlite3 libxxhash libuv libnbd jansson libmicrohttpd libxml-2.0 cmocka)
	pkg_check_modules(${lib} REQUIRED IMPORTED_TARGET ${lib})
endforeach()
# librsync has no pkg-config file.
find_path(LIBRSYNC_INCLUDE_DIR librsync.h REQUIRED)
find_library(LIBRSYNC_LIBRARY rsync REQUIRED)
add_library(Librsync::librsync UNKNOWN IMPORTED)
set_target_properties(Librsync::librsync PROPERTIES
	IMPORTED_LOCATION "${LIBRSYNC_LIBRARY}"
	INTERFACE_INCLUDE_DIRECTORIES "${LIBRSYNC_INCLUDE_DIR}")
# Headers only: the library is loaded where the configuration asks for it.
option(LOCUM_LIBVIRT "VMs of libvirt" ON)
pkg_check_modules(libvirt libvirt>=8.2)
if(LOCUM_LIBVIRT AND libvirt_FOUND)
	message(STATUS "libvirt ${libvirt_VERSION}: VMs of libvirt can be protected")
else()
	message(STATUS "no libvirt (>= 8.2): VMs of libvirt cannot be protected")
endif()
