"""Videos of animated portraits: streamed, in constant memory, complete or not at all."""

from cbtalk.render.motion_info import motion_info
from cbtalk.render.options import DrivingOptions, RenderOptions
from cbtalk.render.video import render_video, write_motion

__all__ = ["DrivingOptions", "RenderOptions", "motion_info", "render_video", "write_motion"]
