/*
 * A loader of OpenCL without any platform. oneDNN's library from org.bytedeco is built with its GPU half and cannot be
 * loaded where the system has no libOpenCL; its CPU half calls nothing of it. Every function answers
 * CL_PLATFORM_NOT_FOUND_KHR.
 */
enum { PLATFORM_NOT_FOUND = -1001 };

#define FUNCTION(name)                                                                                                 \
    __attribute__((visibility("default"))) int name(void);                                                             \
    int name(void) { return PLATFORM_NOT_FOUND; }

FUNCTION(clBuildProgram)
FUNCTION(clCreateBuffer)
FUNCTION(clCreateCommandQueue)
FUNCTION(clCreateContext)
FUNCTION(clCreateKernel)
FUNCTION(clCreateProgramWithBinary)
FUNCTION(clCreateProgramWithSource)
FUNCTION(clCreateSubBuffer)
FUNCTION(clCreateSubDevices)
FUNCTION(clEnqueueCopyBuffer)
FUNCTION(clEnqueueFillBuffer)
FUNCTION(clEnqueueMapBuffer)
FUNCTION(clEnqueueMarkerWithWaitList)
FUNCTION(clEnqueueNDRangeKernel)
FUNCTION(clEnqueueReadBuffer)
FUNCTION(clEnqueueUnmapMemObject)
FUNCTION(clEnqueueWriteBuffer)
FUNCTION(clFinish)
FUNCTION(clGetCommandQueueInfo)
FUNCTION(clGetContextInfo)
FUNCTION(clGetDeviceIDs)
FUNCTION(clGetDeviceInfo)
FUNCTION(clGetEventProfilingInfo)
FUNCTION(clGetExtensionFunctionAddressForPlatform)
FUNCTION(clGetKernelArgInfo)
FUNCTION(clGetKernelInfo)
FUNCTION(clGetMemObjectInfo)
FUNCTION(clGetPlatformIDs)
FUNCTION(clGetPlatformInfo)
FUNCTION(clGetProgramBuildInfo)
FUNCTION(clGetProgramInfo)
FUNCTION(clReleaseCommandQueue)
FUNCTION(clReleaseContext)
FUNCTION(clReleaseDevice)
FUNCTION(clReleaseEvent)
FUNCTION(clReleaseKernel)
FUNCTION(clReleaseMemObject)
FUNCTION(clReleaseProgram)
FUNCTION(clRetainCommandQueue)
FUNCTION(clRetainContext)
FUNCTION(clRetainDevice)
FUNCTION(clRetainEvent)
FUNCTION(clRetainMemObject)
FUNCTION(clSetKernelArg)
