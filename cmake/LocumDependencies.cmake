# One job, one library; the reasons stand in docs/DESIGN.md.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
foreach(lib IN ITEMS libsodium libzstd sqlite3 libxxhash libuv libnbd jansson libmicrohttpd cmocka)
	pkg_check_modules(${lib} REQUIRED IMPORTED_TARGET ${lib})
endforeach()
