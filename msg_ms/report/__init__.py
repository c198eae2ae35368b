"""Reports of evaluations: charts, tables and images in one page, and the numbers as JSON and CSV."""

from .content import Column, Image, Report, Section, Table
from .folder import PAGE, check_report, write_report

__all__ = ["PAGE", "Column", "Image", "Report", "Section", "Table", "check_report", "write_report"]
