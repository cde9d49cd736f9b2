# The layer rule: a library may only use libraries of a lower layer.
#
#   locum_library(NAME LAYER n SOURCES ... [DEPS lib...] [EXTERNAL target...])
#
# A room publishes its own folder only, as "room/header.h"; third-party headers
# never leak upward (they are linked PRIVATE).
function(locum_library name)
	cmake_parse_arguments(A "" "LAYER" "SOURCES;DEPS;EXTERNAL" ${ARGN})
	# A source or a room that is announced but not written yet must not stop the others.
	foreach(item IN LISTS A_SOURCES)
		if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${item})
			message(STATUS "${name}: ${item} is not there yet")
			list(REMOVE_ITEM A_SOURCES ${item})
		endif()
	endforeach()
	foreach(item IN LISTS A_DEPS)
		if(NOT TARGET ${item})
			message(STATUS "${name}: left out, ${item} is not there yet")
			return()
		endif()
	endforeach()
	if(NOT A_SOURCES)
		return()
	endif()
	add_library(${name} STATIC ${A_SOURCES})
	set_target_properties(${name} PROPERTIES LAYER ${A_LAYER})
	target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
	foreach(dep IN LISTS A_DEPS)
		get_target_property(dep_layer ${dep} LAYER)
		if(NOT dep_layer LESS A_LAYER)
			message(FATAL_ERROR
				"${name} (layer ${A_LAYER}) may not use ${dep} (layer ${dep_layer})")
		endif()
		target_link_libraries(${name} PUBLIC ${dep})
	endforeach()
	target_link_libraries(${name} PRIVATE ${A_EXTERNAL})
endfunction()
