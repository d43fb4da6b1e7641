"""The monthly report on energy, its cost, carbon and water, as JSON, PDF and XLSX.

`content` computes the numbers, `document` arranges them as tables with texts in a language, and `pdf` and `xlsx` write
these tables. So all formats have the same numbers.
"""
